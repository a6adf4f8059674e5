"""The pivoted Cholesky factor of ``K K^T``, from ``K`` or from the product.

Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 10.3. Each pivot
is the row that is left longest; pivots that equal up to rounding go by their index.
"""

import torch
from torch import Tensor

# Diagonal entries this close, relatively, count as equal and the first is taken, so
# that rounding does not decide between rows of equal norm.
_TIE = 1e-9

# A downdated diagonal has an absolute error of about 1e-16 of where it started.
# Measuring it again after a drop by this factor keeps it relatively exact to 1e-10.
_REFRESH = 1e-4


def orthogonalise_rows(keys: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Return ``Q^T`` and ``L^T`` with ``K = L Q^T``, by pivoted Gram-Schmidt.

    Parameters
    ----------
    keys : Tensor
        ``K``, shape ``(d_key, n)``, float64, finite.
    tolerance : float
        Rows left shorter than ``tolerance`` times the longest count as dependent.

    Returns
    -------
    tuple of Tensor
        ``Q^T``, shape ``(r, n)``, with orthonormal rows, and ``L^T``, shape
        ``(r, d_key)``: triangular, with a positive diagonal, in the pivots' order.
    """
    max_rank = min(keys.shape)
    basis = keys.new_zeros(max_rank, keys.shape[1])
    factor_rows = keys.new_zeros(max_rank, keys.shape[0])
    remaining = keys.square().sum(dim=1)
    measured = _largest(remaining)
    smallest = tolerance**2 * measured
    for rank in range(max_rank):
        if _largest(remaining) <= max(_REFRESH * measured, smallest):
            remaining = _project_out(keys, basis[:rank]).square().sum(dim=1)
            measured = _largest(remaining)
        if measured <= smallest:
            return basis[:rank], factor_rows[:rank]
        row = _project_out(keys[_pivot(remaining)], basis[:rank])
        basis[rank] = row / torch.linalg.vector_norm(row)
        factor_rows[rank] = keys @ basis[rank]
        remaining = (remaining - factor_rows[rank].square()).clamp_min(0.0)
    return basis, factor_rows


def pivoted_cholesky(gram: Tensor, tolerance: float) -> tuple[list[int], Tensor]:
    """Return the pivots and ``L^T`` with ``L L^T`` the semidefinite ``gram``.

    Parameters
    ----------
    gram : Tensor
        Shape ``(d_key, d_key)``, symmetric positive semidefinite, float64, finite.
    tolerance : float
        Diagonal entries left smaller than ``tolerance`` times the largest count as
        zero.

    Returns
    -------
    tuple of list of int and Tensor
        The ``r`` pivots, first to last, and ``L^T``, shape ``(r, d_key)``.
    """
    factor_rows = torch.zeros_like(gram)
    remaining = gram.diagonal().clone()
    smallest = tolerance * _largest(remaining)
    pivots: list[int] = []
    while len(pivots) < len(gram) and _largest(remaining) > smallest:
        rank, pivot = len(pivots), _pivot(remaining)
        done = factor_rows[:rank]
        row = gram[pivot] - done[:, pivot] @ done
        factor_rows[rank] = row / remaining[pivot].sqrt()
        remaining = (remaining - factor_rows[rank].square()).clamp_min(0.0)
        pivots.append(pivot)
    return pivots, factor_rows[: len(pivots)]


def _project_out(rows: Tensor, basis: Tensor) -> Tensor:
    """Return ``rows`` without their part in the span of the rows of ``basis``."""
    # Twice is enough: the second pass removes what rounding left in the first
    # (Giraud, Langou, Rozloznik, van den Eshof, 2005, Numerische Mathematik 101).
    for _ in range(2):
        rows = rows - (rows @ basis.T) @ basis
    return rows


def _pivot(remaining: Tensor) -> int:
    """Return the first index whose entry is the largest up to rounding."""
    is_nearly_largest = remaining >= remaining.max() * (1.0 - _TIE)
    return int(is_nearly_largest.int().argmax())


def _largest(values: Tensor) -> float:
    return float(values.max()) if values.numel() else 0.0
