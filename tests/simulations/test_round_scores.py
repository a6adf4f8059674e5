"""What each scored round says of all edits so far."""

import pytest
from fake_rounds import fake_round, old_round

from simulations.round_scores import edits_so_far, scores_by_round

SCORES = {"EA": 90.0, "PA": 60.0, "NA": 30.0, "Score": 75.0, "ES": 99.0}


def test_edits_are_counted_up_to_each_round_that_was_kept():
    undone = fake_round(2, num_edits=50, refused="too much")
    rounds = [fake_round(1, num_edits=3), undone, fake_round(4, num_edits=5)]

    assert edits_so_far(rounds) == {1: 3, 4: 8}


def test_the_mean_is_that_of_the_three_accuracies():
    found = scores_by_round([fake_round(1), fake_round(2, evaluation=SCORES)], {})

    assert found == {2: {"EA": 90, "PA": 60, "NA": 30, "Score": 75, "mean": 60}}


def test_without_neighborhood_there_is_no_mean():
    rounds = [fake_round(1, evaluation={"EA": 90.0, "PA": 60.0})]

    assert scores_by_round(rounds, {}) == {1: {"EA": 90.0, "PA": 60.0}}


def test_undone_rounds_are_left_out():
    rounds = [fake_round(1, evaluation=SCORES, refused="too much")]

    assert scores_by_round(rounds, {}) == {}


NORMS = {
    **{"l1/h.0.w": 12.0, "l1/h.1.w": 33.0, "l2/h.0.w": 9.0},
    **{"delta-l1/h.0.w": 3.0, "delta-l1/h.1.w": 6.0},
}
BASE = {"l1/h.0.w": 10.0, "l1/h.1.w": 20.0, "l2/h.0.w": 1.0}


def test_norms_are_those_of_all_edited_weights_together():
    report = fake_round(1, 80.0, weight_norms=NORMS, base_norms=BASE)

    found = scores_by_round([report], {"l1/h.0.w": 1.0})[1]

    # (12 + 33) / (10 + 20) and (3 + 6) / (10 + 20)
    assert found["norm"] == pytest.approx(50.0)
    assert found["delta"] == pytest.approx(30.0)


def test_older_rounds_take_the_norms_from_before():
    found = scores_by_round([old_round(1)], {"l1/h.0.w": 10.0, "l1/h.9.w": 5.0})

    assert found == {1: {"EA": 80.0, "norm": pytest.approx(10.0)}}


def test_health_is_held_against_the_unedited_model():
    health = {"perplexity": 3.0, "base-perplexity": 2.0, "kl-to-base": 0.25}

    found = scores_by_round([fake_round(1, 80.0, health=health)], {})[1]

    assert (found["perplexity"], found["kl"]) == (50.0, 0.25)
