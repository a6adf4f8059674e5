"""Forgetting measures: by hand, their laws, and a picture that shows the matrix."""

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.evaluation.edit_groups import checkpoints, group_means
from flwr_collabedit.evaluation.forgetting import EfficacyMatrix

# Round 1 recovers after round 2's loss; sizes differ.
ROWS = [
    [90.0],
    [40.0, 80.0],
    [70.0, 60.0, 100.0],
    [30.0, 70.0, 20.0, 100.0],
]
MATRIX = EfficacyMatrix.of(ROWS, [10, 30, 40, 20])


def test_what_is_left_in_the_end_and_of_the_first_round():
    assert MATRIX.last_row == (30.0, 70.0, 20.0, 100.0)
    assert MATRIX.first_round == (90.0, 40.0, 70.0, 30.0)


def test_losses_are_against_the_own_round():
    assert MATRIX.losses == (60.0, 10.0, 80.0)
    assert MATRIX.mean_loss == pytest.approx(50.0)


def test_forgetting_is_against_the_best_round_before_the_last():
    grown = EfficacyMatrix.of([[50], [90, 60], [70, 80, 100]])

    assert grown.forgetting == (20.0, -20.0)
    assert grown.mean_forgetting == 0.0
    assert grown.losses == (-20.0, -20.0)


def test_overall_weighs_rounds_by_their_edits():
    # (10 * 40 + 30 * 80) / 40; (10 * 70 + 30 * 60 + 40 * 100) / 80;
    # (10 * 30 + 30 * 70 + 40 * 20 + 20 * 100) / 100.
    assert MATRIX.overall == pytest.approx((90.0, 70.0, 81.25, 52.0))


def test_rounds_that_were_not_measured_are_passed_over():
    gaps = EfficacyMatrix.of(
        [[90, None, None], [float("nan"), None], [40, None, 100]], [3, 0, 1]
    )

    assert gaps.rows == ((90.0,), (None, None), (40.0, None, 100.0))
    assert gaps.losses == gaps.forgetting == (50.0, None)
    assert gaps.mean_forgetting == gaps.mean_loss == 50.0
    assert gaps.overall == (90.0, None, 55.0)


def test_one_round_forgets_nothing():
    one = EfficacyMatrix.of([[90]])

    assert one.losses == one.forgetting == ()
    assert one.mean_forgetting is None
    assert one.overall == one.last_row == (90.0,)


@pytest.mark.parametrize(
    ("rows", "sizes", "message"),
    [
        ([], None, "at least one round"),
        ([[1], [1]], None, "Round 1: .* rounds 0 to 1"),
        ([[1, 2]], None, "Round 0: .* none of later"),
        ([[float("inf")]], None, "finite"),
        ([[1]], [1, 2], "each of 1 rounds"),
        ([[1]], [-1], "at least 0"),
    ],
    ids=["none", "short row", "past diagonal", "infinite", "sizes", "negative size"],
)
def test_what_is_no_such_matrix_is_refused(rows, sizes, message):
    with pytest.raises(ConfigurationError, match=message):
        EfficacyMatrix.of(rows, sizes)


@given(data=st.data())
def test_single_edits_give_d4s_protocols(data):
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    hit = st.sampled_from([0.0, 1.0])
    scores = [data.draw(st.lists(hit, min_size=end, max_size=end)) for end in ends]

    matrix = EfficacyMatrix.from_edits(scores, ends)

    assert matrix.overall == pytest.approx(tuple(fmean(values) for values in scores))
    assert list(matrix.last_row) == group_means(scores[-1], ends)
    for s, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        column = [row[s] for row in matrix.rows[s:]]
        assert column == [fmean(values[start:end]) for values in scores[s:]]
    known = zip(matrix.losses, matrix.forgetting, strict=True)
    assert all(loss <= forgotten for loss, forgotten in known)


def test_rounds_without_evaluation_or_edits_have_no_entry():
    matrix = EfficacyMatrix.from_edits([[1.0, 0.0], [], [1.0, 1.0, 0.0]], [2, 2, 3])

    assert matrix.rows == ((0.5,), (None, None), (1.0, None, 0.0))
    assert matrix.sizes == (2, 0, 1)


def test_scores_that_are_not_of_all_edits_so_far_are_refused():
    with pytest.raises(ConfigurationError, match=r"Round 1: .* 3 edits so far"):
        EfficacyMatrix.from_edits([[1.0], [1.0, 0.0]], [1, 3])
    with pytest.raises(ConfigurationError, match="of 2 rounds, found 1"):
        EfficacyMatrix.from_edits([[1.0]], [1, 2])


def test_checkpoints_come_every_so_many_edits_and_at_the_end_once():
    assert checkpoints(300, 100) == [100, 200, 300]
    assert checkpoints(301, 100) == [100, 200, 300, 301]
    assert checkpoints(7, 100) == [7]
    with pytest.raises(ConfigurationError, match="every 0"):
        checkpoints(10, 0)
    with pytest.raises(ConfigurationError, match="found 0 edits"):
        checkpoints(0, 10)


def test_groups_that_do_not_end_with_the_values_are_refused():
    for ends in ([2], [2, 1, 3], []):
        with pytest.raises(ConfigurationError, match="up to 3"):
            group_means([1.0, 2.0, 3.0], ends)
