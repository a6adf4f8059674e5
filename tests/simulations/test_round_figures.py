"""What rounds say of earlier edits, also where some were undone or not evaluated."""

import pytest
from fake_rounds import fake_round, old_round

from simulations.round_figures import (
    efficacy_matrix,
    end_figures,
    first_round_efficacy,
    kept,
    layer_of,
    norm_growth,
    overall_efficacy,
)


def test_the_matrix_has_each_rounds_edits_after_each_round():
    matrix = efficacy_matrix(
        [fake_round(1, 100.0), fake_round(2, 80.0, 90.0), fake_round(3, 50.0, 60.0, 70)]
    )

    assert matrix.rows == ((100.0,), (80.0, 90.0), (50.0, 60.0, 70.0))


def test_a_round_that_was_not_evaluated_has_an_unknown_row():
    matrix = efficacy_matrix(
        [fake_round(1), fake_round(2, 80.0, 90.0), fake_round(3, 50.0, 60.0, 70.0)]
    )

    assert matrix.rows == ((None,), (80.0, 90.0), (50.0, 60.0, 70.0))


def test_an_undone_round_has_neither_row_nor_column():
    # After round 3 the clients still score what round 2 was to write.
    rounds = [
        fake_round(1, 100.0),
        fake_round(2, 10.0, 99.0, refused="too much"),
        fake_round(3, 80.0, 0.0, 70.0),
    ]

    assert efficacy_matrix(rounds).rows == ((100.0,), (None, None), (80.0, None, 70.0))
    assert first_round_efficacy(rounds) == {1: 100.0, 3: 80.0}
    assert overall_efficacy(rounds) == {1: 100.0, 3: 50.0}


def test_the_matrix_ends_with_the_last_round_that_was_kept():
    rounds = [
        fake_round(1, 100.0),
        fake_round(2, 80.0, 90.0),
        fake_round(3, 10.0, 10.0, 99.0, refused="too much"),
    ]

    assert efficacy_matrix(rounds).last_row == (80.0, 90.0)


def test_edits_that_do_not_count_are_no_rounds_edits():
    first = fake_round(1, 100.0)
    second = fake_round(2, 80.0, 90.0)
    second["efficacy_by_round"]["inactive"] = {"EA": 1.0, "edits": 1}

    assert efficacy_matrix([first, second]).last_row == (80.0, 90.0)


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
    assert efficacy_matrix(rounds) is None


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
