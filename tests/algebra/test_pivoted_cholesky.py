"""Both ways to the factor, against the products that define it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_collabedit.algebra.pivoted_cholesky import (
    orthogonalise_rows,
    pivoted_cholesky,
)

# Of the two longest rows the second is longer by rounding only.
LENGTHS = [1.0, 3.0, 3.0 * (1 + 1e-14), 2.0]
DRAWS = {
    "seed": st.integers(0, 2**32 - 1),
    "d_key": st.integers(1, 16),
    "num_edits": st.integers(1, 12),
}


def draw(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert float((found - expected).norm()) <= 1e-11 * float(expected.norm())


@given(**DRAWS)
@settings(max_examples=30, deadline=None)
def test_orthonormal_rows_times_their_factor_are_the_keys(
    seed: int, d_key: int, num_edits: int
):
    keys = draw(seed, d_key, num_edits)

    basis, factor_rows = orthogonalise_rows(keys, 1e-13)

    assert len(basis) == len(factor_rows) == min(d_key, num_edits)
    assert_near(basis @ basis.T, torch.eye(len(basis), dtype=torch.float64))
    assert_near(factor_rows.T @ basis, keys)


@given(**DRAWS)
@settings(max_examples=30, deadline=None)
def test_the_factor_is_triangular_and_positive_in_the_order_of_the_pivots(
    seed: int, d_key: int, num_edits: int
):
    keys = draw(seed, d_key, num_edits)
    gram = keys @ keys.T

    pivots, factor_rows = pivoted_cholesky(gram, 1e-13)

    assert_near(factor_rows.T @ factor_rows, gram)
    in_order = factor_rows[:, pivots]
    diagonal = in_order.diagonal()
    # A pivot may be as small as sqrt(1e-13) of the first, and divides the rounding.
    rounding = 1e-8 * diagonal[0]
    assert (in_order.tril(-1).abs() <= rounding).all()
    assert (diagonal > 0).all()
    assert (diagonal[1:] <= diagonal[:-1] + rounding).all()


def test_the_longest_row_comes_first_and_of_equal_ones_the_first():
    keys = torch.diag(torch.tensor(LENGTHS, dtype=torch.float64))

    pivots, _ = pivoted_cholesky(keys @ keys.T, 1e-13)

    assert pivots == [1, 2, 3, 0]


@pytest.mark.parametrize("tolerance", [1e-13, 0.5])
def test_what_is_left_below_the_tolerance_is_dropped(tolerance: float):
    keys = torch.diag(torch.tensor([4.0, 1.0]).double())

    basis, _ = orthogonalise_rows(keys, tolerance)
    pivots, _ = pivoted_cholesky(keys @ keys.T, tolerance**2)

    assert len(basis) == len(pivots) == (1 if tolerance == 0.5 else 2)
