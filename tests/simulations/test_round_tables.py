"""A run's tables over its rounds: only those that have something to say."""

from fake_rounds import fake_round, old_round

from flwr_collabedit.evaluation.report import ABSENT, render_markdown
from simulations.round_tables import round_tables

HEALTH = {"perplexity": 2.5, "base-perplexity": 2.0, "kl-to-base": 0.00012}
NORMS = {
    "weight_norms": {"l1/h.3.w": 12.0, "l1/h.4.w": 9.5, "l2/h.3.w": 7.0},
    "base_norms": {"l1/h.3.w": 10.0, "l1/h.4.w": 10.0, "l2/h.3.w": 1.0},
}


def shown(rounds, title, **options):
    """Return a table's lines as they are read, without its head and rule."""
    for name, columns, rows, _ in round_tables(rounds, **options):
        if name == title:
            text = render_markdown(name, columns, rows).splitlines()[2:]
            lines = [[c.strip() for c in line.split("|")[1:-1]] for line in text]
            return [lines[0], *lines[2:]]
    return None


def titles(rounds):
    return [table[0] for table in round_tables(rounds)]


def test_rounds_without_any_such_figures_have_no_tables():
    assert titles([fake_round(1), fake_round(2)]) == []
    assert titles([old_round(1), old_round(2)]) == []


def test_one_round_has_its_health_only():
    assert titles([fake_round(1, 100.0, health=HEALTH)]) == ["Health of the model"]


def test_health_is_shown_against_the_unedited_model():
    rounds = [fake_round(1), fake_round(2, health=HEALTH, **NORMS)]

    assert shown(rounds, "Health of the model") == [
        ["round", "perplexity", "KL", "L1 of layers 3, 4, %"],
        ["2", "2.000 → 2.500", "1.2e-04", "+20.0, -5.0"],
    ]


def test_norms_are_shown_where_no_text_was_measured():
    assert shown([fake_round(1, **NORMS)], "Health of the model") == [
        ["round", "L1 of layers 3, 4, %"],
        ["1", "+20.0, -5.0"],
    ]


def test_warnings_are_counted_and_undone_rounds_are_marked():
    rounds = [
        fake_round(1, health=HEALTH),
        fake_round(2, health=HEALTH, warnings=["a"]),
        fake_round(3, health=HEALTH, warnings=["a", "b"], refused="too much"),
    ]

    table = shown(rounds, "Health of the model")
    assert [row[-1] for row in table] == [
        *("noted", "", "1 warning", "undone, 2 warnings")
    ]


def test_declarations_are_shown_with_what_is_left_of_inactive_edits():
    after = fake_round(2, 90.0)
    after["efficacy_by_round"]["inactive"] = {"EA": 12.5, "edits": 8}
    declared = {"present": 3, "conflicts": 2, "overlaps": 0, "left-out": 1}
    rounds = [fake_round(1, declared=declared), after]

    assert shown(rounds, "Declarations") == [
        ["round", "present", "conflicts", "overlaps", "left out", "EA of inactive"],
        ["1", "3", "2", "0", "1", ABSENT],
        ["2", ABSENT, ABSENT, ABSENT, ABSENT, "12.5"],
    ]


def test_present_edits_are_not_shown_where_nobody_looked_for_them():
    rounds = [fake_round(1, declared={"present": 0, "left-out": 0, "withdrawn": 4})]

    table = shown(rounds, "Declarations", presence_is_measured=False)
    assert table == [["round", "left out", "withdrawn"], ["1", "0", "4"]]


def test_a_short_run_shows_what_is_left_of_every_round():
    rounds = [fake_round(1, 100.0), fake_round(2, 80.0, 90.0)]

    assert shown(rounds, "EA of earlier rounds' edits") == [
        ["after round", "round 1", "round 2", "all so far"],
        ["1", "100.0", ABSENT, "100.0"],
        ["2", "80.0", "90.0", "85.0"],
    ]


def test_a_long_run_shows_what_is_left_of_the_first_round_and_of_all():
    rounds = [fake_round(r, *[100.0 - r] * r) for r in range(1, 8)]
    table = shown(rounds, "EA of earlier rounds' edits")
    assert table[0] == ["after round", "round 1", "all so far"]
    assert [row[0] for row in table[1:]] == ["1", "2", "3", "4", "5", "6", "7"]
    assert table[-1] == ["7", "93.0", "93.0"]


def test_rounds_between_scorings_are_shown_together():
    rounds = [
        *(fake_round(1), fake_round(2, 80.0, 90.0)),
        *(fake_round(3), fake_round(4, 50.0, 60.0, 70.0, 70.0)),
    ]

    assert shown(rounds, "EA of earlier rounds' edits") == [
        ["after round", "1-2", "3-4", "all so far"],
        ["2", "85.0", ABSENT, "85.0"],
        ["4", "55.0", "70.0", "62.5"],
    ]
    assert shown(rounds, "EA in the end, and forgetting")[0][0] == "1-2"


def test_forgetting_is_summed_up_in_one_row():
    # Lost since edited: 60, 10, 0; since best: 60, 30, 0.
    rounds = [
        fake_round(1, 100.0),
        fake_round(2, 80.0, 70.0),
        fake_round(3, 70.0, 90.0, 80.0),
        fake_round(4, 40.0, 60.0, 80.0, 100.0, evaluation={"EA": 66.0}),
    ]

    assert shown(rounds, "EA in the end, and forgetting")[1] == [
        *("40.0", "66.0", "70.0", "23.3", "30.0")
    ]


def test_undone_rounds_are_explained_where_there_are_any():
    rounds = [fake_round(1, 100.0), fake_round(2, 80.0, 90.0)]
    bad = fake_round(3, 1.0, 1.0, 1.0, refused="too much")

    assert "undone" not in round_tables(rounds)[-1][3]
    assert "undone" in round_tables([*rounds, bad])[-1][3]
