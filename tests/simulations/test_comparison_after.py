"""The table of scores after so many edits: which numbers, in which order."""

from fake_rounds import fake_round

from simulations.comparison import Group
from simulations.comparison_after import after_columns, after_rows
from simulations.finished_runs import FinishedRun


def run_of(accuracies, seed=0, **changes):
    """Return a run of rounds of ten edits; ``None`` is a round that was not scored."""
    rounds = [
        fake_round(
            number,
            num_edits=10,
            evaluation={}
            if value is None
            else {"EA": value, "PA": value, "NA": value, "Score": 1.0},
            **changes,
        )
        for number, value in enumerate(accuracies, start=1)
    ]
    return FinishedRun(None, "method", {"seed": seed}, {"rounds": rounds}, rounds)


def group(name, *runs):
    return Group(name, {}, {}, runs)


def shown(rows):
    return [(g.method, row["edits"], row["mean"]) for g, row in rows]


def test_methods_are_in_order_of_the_mean_at_each_number_of_edits():
    falling = group("falling", run_of([90.0, None, 10.0]))
    steady = group("steady", run_of([50.0, None, 40.0]))

    assert shown(after_rows([steady, falling])) == [
        ("falling", "10", "90.0"),
        ("steady", "10", "50.0"),
        ("steady", "30", "40.0"),
        ("falling", "30", "10.0"),
    ]


def test_only_the_numbers_at_which_all_were_scored_are_shown():
    often = group("often", run_of([9.0, 8.0, 7.0, 6.0]))
    rarely = group("rarely", run_of([None, 5.0, None, 4.0]))

    rows = after_rows([often, rarely])

    assert list(dict.fromkeys(row["edits"] for _, row in rows)) == ["20", "40"]


def test_of_many_scorings_the_first_the_middle_and_the_last_are_shown():
    rows = after_rows([group("one", run_of([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]))])

    assert shown(rows) == [
        ("one", "10", "1.0"),
        ("one", "40", "4.0"),
        ("one", "70", "7.0"),
    ]


def test_seeds_are_averaged_and_a_number_that_one_lacks_is_left_out():
    runs = [run_of([60.0, 50.0, 40.0]), run_of([80.0, None, 40.0], seed=1)]

    rows = after_rows([group("one", *runs)])

    # stdev of 60, 80 is 14.14; 12.7062 * 14.14 / sqrt(2) = 127.1
    assert shown(rows) == [("one", "10", "70.0 ± 127.1"), ("one", "30", "40.0 ± 0.0")]


def test_methods_that_were_scored_once_do_not_hide_the_others():
    once, twice = group("once", run_of([None, 5.0])), group("twice", run_of([3.0, 2.0]))

    assert shown(after_rows([once, twice])) == [
        ("twice", "10", "3.0"),
        ("twice", "20", "2.0"),
    ]
    assert after_rows([once]) == []


def test_columns_without_content_are_left_out():
    health = {"perplexity": 2.2, "base-perplexity": 2.0, "kl-to-base": 0.012}
    plain = after_rows([group("one", run_of([3.0, 2.0]))])
    measured = after_rows([group("one", run_of([3.0, 2.0], health=health))])

    columns = after_columns([row for _, row in plain])
    assert [c.key for c in columns] == ["edits", "EA", "PA", "NA", "mean", "Score"]
    assert "perplexity" in {c.key for c in after_columns([row for _, row in measured])}
    _, row = measured[0]
    assert (row["perplexity"], row["kl"]) == ("+10.00", "1.2e-02")


def test_thousands_of_edits_are_grouped():
    runs = run_of([1.0] * 120)

    assert after_rows([group("one", runs)])[-1][1]["edits"] == "1,200"
