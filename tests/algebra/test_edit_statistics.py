"""Statistics form a commutative group, so merging clients equals pooling them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.least_squares import solve_update
from flwr_collabedit.errors import MatrixError

SEEDS = st.integers(0, 2**32 - 1)
CLIENT_SIZES = st.lists(st.integers(0, 5), min_size=1, max_size=5)
D_KEY, D_VALUE = 7, 4


def draw_pairs(seed: int, num_edits: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    return (
        torch.randn(D_KEY, num_edits, **options),
        torch.randn(D_VALUE, num_edits, **options),
    )


def draw_statistics(seed: int, num_edits: int) -> EditStatistics:
    return EditStatistics.from_pairs(*draw_pairs(seed, num_edits))


def assert_equal(left: EditStatistics, right: EditStatistics) -> None:
    torch.testing.assert_close(left.gram, right.gram, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(left.cross, right.cross, rtol=1e-12, atol=1e-12)
    assert left.num_edits == right.num_edits


def test_two_edits_give_the_sums_computed_by_hand():
    # K = [[1, 2], [0, 3]], R = [[1, -1]].
    # K K^T = [[1*1+2*2, 1*0+2*3], [6, 3*3]] = [[5, 6], [6, 9]]
    # R K^T = [1*1-1*2, 1*0-1*3] = [-1, -3]
    keys, residuals = (
        torch.tensor([[1.0, 2.0], [0.0, 3.0]]),
        torch.tensor([[1.0, -1.0]]),
    )

    statistics = EditStatistics.from_pairs(keys, residuals)

    assert statistics.gram.tolist() == [[5.0, 6.0], [6.0, 9.0]]
    assert statistics.cross.tolist() == [[-1.0, -3.0]]
    assert (statistics.num_edits, statistics.d_key, statistics.d_value) == (2, 2, 1)


@given(seed=SEEDS, sizes=st.tuples(*[st.integers(0, 5)] * 3))
@settings(max_examples=25, deadline=None)
def test_statistics_are_a_commutative_group(seed: int, sizes: tuple[int, int, int]):
    a, b, c = (draw_statistics(seed + i, size) for i, size in enumerate(sizes))
    zero = EditStatistics.zero(D_VALUE, D_KEY)

    assert_equal(a + b, b + a)
    assert_equal((a + b) + c, a + (b + c))
    assert_equal(a + zero, a)
    assert_equal(a - a, zero)
    assert_equal((a + b) - b, a)
    assert_equal(zero - (zero - a), a)


@given(seed=SEEDS, sizes=CLIENT_SIZES, data=st.data())
@settings(max_examples=40, deadline=None)
def test_merging_clients_equals_pooling_their_edits(
    seed: int, sizes: list[int], data: st.DataObject
):
    keys, residuals = draw_pairs(seed, sum(sizes))
    clients = [
        EditStatistics.from_pairs(*pair)
        for pair in zip(keys.split(sizes, 1), residuals.split(sizes, 1), strict=True)
    ]
    arrival = data.draw(st.permutations(clients))
    prior = torch.eye(D_KEY, dtype=torch.float64) + draw_statistics(seed, 3).gram

    merged = sum(arrival, EditStatistics.zero(D_VALUE, D_KEY))
    pooled = EditStatistics.from_pairs(keys, residuals)

    assert_equal(merged, pooled)
    gap = torch.linalg.norm(solve_update(merged, prior) - solve_update(pooled, prior))
    assert gap <= 1e-9 * torch.linalg.norm(solve_update(pooled, prior))


def test_withdrawing_a_client_gives_the_update_without_it():
    kept, leaving = draw_statistics(1, 4), draw_statistics(2, 3)
    prior = torch.eye(D_KEY, dtype=torch.float64)

    update = solve_update((kept + leaving) - leaving, prior)

    torch.testing.assert_close(update, solve_update(kept, prior), rtol=1e-9, atol=1e-12)


def test_adding_leaves_both_operands_as_they_were():
    a, b = draw_statistics(1, 2), draw_statistics(2, 2)
    before = a.gram.clone(), b.cross.clone()

    a + b

    assert torch.equal(a.gram, before[0])
    assert torch.equal(b.cross, before[1])


def test_half_precision_pairs_are_summed_in_float64():
    keys, residuals = (matrix.half() for matrix in draw_pairs(0, 3))

    statistics = EditStatistics.from_pairs(keys, residuals)

    assert torch.equal(statistics.gram, keys.double() @ keys.double().T)
    assert torch.equal(statistics.cross, residuals.double() @ keys.double().T)


@pytest.mark.parametrize(
    ("keys", "residuals", "message"),
    [
        (
            torch.zeros(3),
            torch.zeros(2, 1),
            r"keys of shape \(any, any\), found \(3,\)",
        ),
        (torch.zeros(3, 2), torch.zeros(2, 1), r"residuals of shape \(any, 2\)"),
        (torch.zeros(3, 2, dtype=torch.int64), torch.zeros(2, 2), "floating point"),
        (torch.full((3, 2), torch.nan), torch.zeros(2, 2), "keys, found 6 of 6"),
        (torch.zeros(3, 2), torch.full((2, 2), torch.inf), "residuals, found 4 of 4"),
    ],
    ids=["vector", "columns-differ", "integers", "nan", "infinite"],
)
def test_pairs_of_the_wrong_form_are_refused(
    keys: torch.Tensor, residuals: torch.Tensor, message: str
):
    with pytest.raises(MatrixError, match=message):
        EditStatistics.from_pairs(keys, residuals)


def test_statistics_of_different_layers_cannot_be_combined():
    narrow, wide = EditStatistics.zero(1, 3), EditStatistics.zero(4, 3)

    with pytest.raises(MatrixError, match=r"\(1, 3\), found \(4, 3\)"):
        narrow + wide
    with pytest.raises(MatrixError, match=r"\(4, 3\), found \(1, 3\)"):
        wide - narrow


@pytest.mark.parametrize(
    ("gram", "cross"),
    [
        (torch.zeros(3, 3), torch.zeros(2, 3)),
        (torch.zeros(3, 2).double(), torch.zeros(2, 2).double()),
        (torch.zeros(3, 3).double(), torch.zeros(2, 4).double()),
    ],
    ids=["float32", "gram-not-square", "cross-of-another-width"],
)
def test_matrices_that_do_not_belong_together_are_refused(
    gram: torch.Tensor, cross: torch.Tensor
):
    with pytest.raises(MatrixError):
        EditStatistics(gram, cross, num_edits=1)
