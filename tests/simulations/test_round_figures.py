"""What rounds say of earlier edits, also where some were undone or not evaluated."""

import pytest
from fake_rounds import fake_round, old_round

from simulations.round_figures import (
    EfficacyByScoring,
    end_figures,
    first_efficacy,
    kept,
    layer_of,
    norm_growth,
    overall_efficacy,
)


def matrix(*rounds):
    return EfficacyByScoring.of(rounds).matrix.rows


def test_the_matrix_has_each_rounds_edits_after_each_round():
    rounds = [fake_round(1, 100.0), fake_round(2, 80.0, 90.0)]
    last = fake_round(3, 50.0, 60.0, 70.0)

    assert matrix(*rounds, last) == ((100.0,), (80.0, 90.0), (50.0, 60.0, 70.0))
    assert EfficacyByScoring.of(rounds).names == ["round 1", "round 2"]


def test_rounds_between_scorings_are_one_group_weighed_by_its_edits():
    scored = fake_round(4, 50.0, 60.0, 70.0, 90.0)
    scored["efficacy_by_round"]["3"]["edits"] = 6
    found = EfficacyByScoring.of(
        [fake_round(1), fake_round(2, 80.0, 90.0), fake_round(3), scored]
    )

    assert found.rounds == ((1, 2), (3, 4))
    assert found.names == ["1-2", "3-4"]
    # (50 + 60) / 2 and (6 * 70 + 2 * 90) / 8
    assert found.matrix.rows == ((85.0,), (55.0, 75.0))


def test_an_undone_round_has_neither_row_nor_column():
    # After round 3 the clients still score what round 2 was to write.
    rounds = [
        fake_round(1, 100.0),
        fake_round(2, 10.0, 99.0, refused="too much"),
        fake_round(3, 80.0, 0.0, 70.0),
    ]

    assert matrix(*rounds) == ((100.0,), (80.0, 70.0))
    assert EfficacyByScoring.of(rounds).rounds == ((1,), (3,))
    assert first_efficacy(rounds) == {1: 100.0, 3: 80.0}
    assert overall_efficacy(rounds) == {1: 100.0, 3: 50.0}


def test_the_first_edits_are_those_of_the_first_round_that_was_kept():
    rounds = [
        fake_round(1, 100.0, refused="too much"),
        fake_round(2, 0.0, 90.0),
        fake_round(3, 0.0, 80.0, 70.0),
    ]

    assert first_efficacy(rounds) == {2: 90.0, 3: 80.0}


def test_the_matrix_ends_with_the_last_round_that_was_kept():
    undone = fake_round(3, 10.0, 10.0, 99.0, refused="too much")

    assert matrix(fake_round(1, 100.0), fake_round(2, 80.0, 90.0), undone)[-1] == (
        *(80.0, 90.0),
    )


def test_edits_that_were_all_withdrawn_are_unknown():
    rounds = fake_round(1, 100.0), fake_round(2, None, 90.0)
    rounds[1]["efficacy_by_round"]["inactive"] = {"EA": 1.0, "edits": 2}

    assert matrix(*rounds) == ((100.0,), (None, 90.0))
    assert first_efficacy(rounds) == {1: 100.0}


def test_where_only_the_end_was_scored_the_first_edits_are_the_first_rounds():
    assert first_efficacy([fake_round(1), fake_round(2, 80.0, 90.0)]) == {2: 80.0}


@pytest.mark.parametrize(
    "rounds",
    [
        [],
        [fake_round(1, 100.0)],
        [fake_round(1), fake_round(2, 80.0, 90.0)],
        [fake_round(1, 100.0), fake_round(2, 1.0, 1.0, refused="too much")],
        [old_round(1), old_round(2)],
    ],
    ids=["none", "one", "one evaluated", "one kept", "old"],
)
def test_less_than_two_evaluated_rounds_give_no_matrix(rounds):
    assert EfficacyByScoring.of(rounds) is None


def test_growth_is_that_of_l1_norms_in_percent_of_the_unedited_models():
    after = fake_round(
        1, weight_norms={"l1/h.3.w": 12.0, "l2/h.3.w": 9.0, "l1/h.4.w": 5.0}
    )

    assert norm_growth(after, {"l1/h.3.w": 10.0, "l2/h.3.w": 1.0}) == {
        "3": pytest.approx(20.0)
    }


def test_the_end_is_the_last_round_that_was_kept():
    good = fake_round(
        2,
        80.0,
        90.0,
        health={"perplexity": 11.0, "base-perplexity": 10.0, "kl-to-base": 0.5},
        weight_norms={"l1/h.3.w": 12.0, "l1/h.4.w": 13.0},
        base_norms={"l1/h.3.w": 10.0, "l1/h.4.w": 10.0},
    )
    bad = {**good, "server_round": 3, "refused": "too much", "health": {}}

    assert end_figures([fake_round(1, 100.0), good, bad], {}) == {
        "undone": 1,
        "forgetting": 20.0,
        "first": 80.0,
        "all": 85.0,
        "norm": pytest.approx(30.0),
        "perplexity": pytest.approx(10.0),
        "kl": 0.5,
    }


def test_of_an_old_run_the_end_has_what_is_known():
    assert end_figures([old_round(1), old_round(2)], {"l1/h.0.w": 10.0}) == {
        "undone": 0,
        "all": 80.0,
        "norm": pytest.approx(20.0),
    }


def test_a_run_that_kept_no_round_ends_with_nothing():
    rounds = [fake_round(1, 10.0, refused="too much")]

    assert kept(rounds) == []
    assert end_figures(rounds, {}) == {"undone": 1}


def test_a_parameter_is_shown_by_its_layer():
    assert layer_of("l1/transformer.h.17.mlp.c_proj.weight") == "17"
    assert layer_of("head") == "head"
