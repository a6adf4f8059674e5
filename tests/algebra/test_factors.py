"""Sealed factors are lossless and depend on the two matrices alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.factors import SealedFactors, seal, seal_statistics
from flwr_collabedit.errors import MatrixError

SEEDS = st.integers(0, 2**32 - 1)
D_VALUE = 5


def normal(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def relative_gap(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(torch.linalg.norm(found - expected) / torch.linalg.norm(expected))


def assert_lossless(
    factors: SealedFactors, expected: EditStatistics, rtol: float
) -> None:
    found = factors.statistics()
    assert relative_gap(found.gram, expected.gram) <= rtol
    assert relative_gap(found.cross, expected.cross) <= rtol
    assert found.num_edits == expected.num_edits


def draw_keys(kind: str, seed: int, d_key: int, num_edits: int) -> torch.Tensor:
    keys = normal(seed, d_key, num_edits)
    if kind == "duplicated":
        keys[:, num_edits // 2 :] = keys[:, : num_edits - num_edits // 2].clone()
    if kind == "rank-deficient":
        keys = normal(seed, d_key, 2) @ normal(seed + 1, 2, num_edits)
    return keys


def expected_rank(kind: str, d_key: int, num_edits: int) -> int:
    num_different = {
        "full-rank": num_edits,
        "duplicated": (num_edits + 1) // 2,
        "rank-deficient": 2,
    }
    return min(num_different[kind], d_key, num_edits)


@pytest.mark.parametrize("kind", ["full-rank", "duplicated", "rank-deficient"])
@given(seed=SEEDS, d_key=st.integers(1, 24), num_edits=st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_factors_reproduce_both_matrices_at_the_smallest_rank(
    kind: str, seed: int, d_key: int, num_edits: int
):
    keys = draw_keys(kind, seed, d_key, num_edits)
    residuals = normal(seed + 2, D_VALUE, num_edits)
    expected = EditStatistics.from_pairs(keys, residuals)

    factors = seal(keys, residuals)

    assert factors.rank == expected_rank(kind, d_key, num_edits)
    assert_lossless(factors, expected, rtol=1e-12)
    on_the_wire = SealedFactors(
        factors.key_factor.float(), factors.residual_factor.float(), factors.num_edits
    )
    assert_lossless(on_the_wire, expected, rtol=1e-6)


@given(seed=SEEDS, d_key=st.integers(1, 24), num_edits=st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_factors_do_not_tell_which_edit_is_which(seed: int, d_key: int, num_edits: int):
    keys, residuals = normal(seed, d_key, num_edits), normal(seed, D_VALUE, num_edits)
    mixing = torch.linalg.qr(normal(seed + 1, num_edits, num_edits)).Q

    factors, mixed = seal(keys, residuals), seal(keys @ mixing, residuals @ mixing)

    assert relative_gap(mixed.key_factor, factors.key_factor) <= 1e-9
    # B is determined as sharply as the smallest pivot, which random keys may bring
    # near zero where their number equals their width.
    smallest = torch.linalg.svdvals(factors.key_factor)[-1]
    scale = torch.linalg.norm(factors.key_factor) / smallest
    assert relative_gap(mixed.residual_factor, factors.residual_factor) <= 1e-12 * scale


def test_factors_of_the_statistics_equal_factors_of_the_keys():
    keys, residuals = normal(0, 30, 8), normal(1, D_VALUE, 8)

    from_keys = seal(keys, residuals)
    from_sums = seal_statistics(EditStatistics.from_pairs(keys, residuals))

    assert from_sums.rank == 8
    assert from_sums.num_edits == 8
    assert relative_gap(from_sums.key_factor, from_keys.key_factor) <= 1e-9
    assert relative_gap(from_sums.residual_factor, from_keys.residual_factor) <= 1e-9


def test_factors_of_rank_deficient_statistics_reproduce_them():
    keys, residuals = normal(0, 30, 3).repeat(1, 2), normal(1, D_VALUE, 6)
    expected = EditStatistics.from_pairs(keys, residuals)

    factors = seal_statistics(expected)

    assert factors.rank == 3
    assert_lossless(factors, expected, rtol=1e-12)


def test_factors_of_two_keys_are_the_ones_computed_by_hand():
    # K = [[0, 3], [4, 0]], R = [[1, 2]]. The second row is the longer one (4 > 3), so
    # it is the first pivot: q1 = (1, 0), q2 = (0, 1).
    # L = K Q = [[0, 3], [4, 0]]; B = R Q = [1, 2].
    # Mirrored keys give the same L, for its pivots are positive, and B = R Q with
    # q1 = (-1, 0), q2 = (0, -1) is [-1, -2].
    keys, residuals = torch.tensor([[0.0, 3.0], [4.0, 0.0]]), torch.tensor([[1.0, 2.0]])

    factors, mirrored = seal(keys, residuals), seal(-keys, residuals)

    assert factors.key_factor.tolist() == [[0.0, 3.0], [4.0, 0.0]]
    assert factors.residual_factor.tolist() == [[1.0, 2.0]]
    assert mirrored.key_factor.tolist() == [[0.0, 3.0], [4.0, 0.0]]
    assert mirrored.residual_factor.tolist() == [[-1.0, -2.0]]


def test_float32_keys_that_differ_in_the_last_bit_are_both_kept():
    keys = normal(0, 64, 4).float()
    keys[:, 1] = keys[:, 0]
    keys[7, 1] = torch.nextafter(keys[7, 0], torch.tensor(torch.inf))
    residuals = normal(1, D_VALUE, 4)

    factors = seal(keys, residuals)

    assert factors.rank == 4
    assert_lossless(factors, EditStatistics.from_pairs(keys, residuals), rtol=1e-12)


@pytest.mark.parametrize("num_edits", [0, 3], ids=["no-edits", "zero-keys"])
def test_edits_without_a_key_direction_have_rank_zero(num_edits: int):
    factors = seal(torch.zeros(6, num_edits), torch.ones(D_VALUE, num_edits))

    assert factors.rank == 0
    assert factors.num_edits == num_edits
    assert torch.equal(factors.statistics().gram, torch.zeros(6, 6).double())
    assert factors.statistics().cross.shape == (D_VALUE, 6)
    assert seal_statistics(factors.statistics()).rank == 0


def test_keys_over_twelve_orders_of_magnitude_stay_lossless():
    keys = normal(0, 80, 40) * torch.logspace(0, -12, 40, dtype=torch.float64)
    residuals = normal(1, D_VALUE, 40)

    factors = seal(keys, residuals)

    assert factors.rank == 40
    assert_lossless(factors, EditStatistics.from_pairs(keys, residuals), rtol=1e-12)


@pytest.mark.parametrize(("tolerance", "rank"), [(0.05, 2), (0.2, 1)])
def test_tolerance_is_relative_to_the_longest_row(tolerance: float, rank: int):
    keys, residuals = torch.diag(torch.tensor([10.0, 1.0])), torch.ones(1, 2)

    assert seal(keys, residuals, tolerance=tolerance).rank == rank
    # In the gram matrix the same ratio appears squared.
    statistics = EditStatistics.from_pairs(keys, residuals)
    assert seal_statistics(statistics, tolerance=tolerance**2).rank == rank


def test_keys_of_the_wrong_form_are_refused():
    with pytest.raises(MatrixError, match="keys, found 1 of 6"):
        seal(torch.tensor([[1.0, 2.0, torch.nan], [1.0, 2.0, 3.0]]), torch.ones(2, 3))
    with pytest.raises(MatrixError, match=r"residuals of shape \(any, 3\)"):
        seal(torch.ones(4, 3), torch.ones(2, 2))
    with pytest.raises(MatrixError, match="found \\(4, 3\\) and \\(2, 2\\)"):
        SealedFactors(torch.ones(4, 3), torch.ones(2, 2), num_edits=3)
