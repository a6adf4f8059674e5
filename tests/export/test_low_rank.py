import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_collabedit.export.low_rank import TOLERANCE, factor


def product(rows, columns, rank, *, decades=3.0, seed=0):
    """Return a matrix of that rank whose singular values fall over some decades."""
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": torch.float64}
    left = torch.linalg.qr(torch.randn(rows, rank, **draw)).Q
    right = torch.linalg.qr(torch.randn(columns, rank, **draw)).Q
    return left * torch.logspace(0, -decades, rank, dtype=torch.float64) @ right.T


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 150),
    columns=st.integers(1, 150),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_factors_of_any_matrix_give_it_back_with_its_rank(rows, columns, share, seed):
    rank = max(1, round(share * min(rows, columns)))
    delta = product(rows, columns, rank, seed=seed)

    found = factor(delta, dtype=torch.float64)

    assert found.rank == rank
    assert found.left.shape == (rows, rank)
    assert found.right.shape == (rank, columns)
    error = (found.left @ found.right - delta).norm() / delta.norm()
    assert found.relative_error == pytest.approx(float(error), abs=1e-16)
    assert error < 1e-13


@pytest.mark.parametrize("num_rows", [65, 70, 130])
def test_a_matrix_that_is_zero_in_most_rows_keeps_its_rank(num_rows):
    # More than one block of probes, and blocks wider than what is left of the matrix.
    delta = torch.zeros(300, 400, dtype=torch.float64)
    delta[:num_rows] = product(num_rows, 400, num_rows)

    found = factor(delta, dtype=torch.float64)

    assert found.rank == num_rows
    assert found.relative_error < 1e-13


def test_both_factors_are_equally_large():
    found = factor(product(20, 30, 4))

    assert found.left.dtype == found.right.dtype == torch.float32
    assert torch.allclose(found.left.norm(dim=0), found.right.norm(dim=1), rtol=1e-5)
    assert 0 < found.relative_error < TOLERANCE


def test_a_cut_keeps_the_largest_singular_values_and_tells_the_rest():
    delta = torch.diag(torch.tensor([3.0, 4.0, 12.0, 0.0, 0.0]))

    found = factor(delta, max_rank=1)

    kept = torch.diag(torch.tensor([0.0, 0.0, 12.0, 0.0, 0.0]))
    assert torch.allclose(found.left @ found.right, kept)
    assert found.relative_error == pytest.approx(5 / 13, rel=1e-6)


def test_the_rank_is_the_least_within_the_tolerance():
    delta = torch.diag(torch.tensor([1.0, 1e-3, 3e-5, 4e-5], dtype=torch.float64))

    assert factor(delta, tolerance=6e-5).rank == 2
    assert factor(delta, tolerance=4.5e-5).rank == 3
    assert factor(delta, tolerance=2e-5).rank == 4


def test_no_change_has_no_rank():
    found = factor(torch.zeros(3, 5))

    assert found.rank == 0
    assert found.relative_error == 0
    assert torch.equal(found.left @ found.right, torch.zeros(3, 5))


def test_equal_deltas_give_equal_factors():
    first, second = (factor(product(50, 200, 9)) for _ in range(2))

    assert torch.equal(first.left, second.left)
    assert torch.equal(first.right, second.right)
