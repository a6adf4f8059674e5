"""Checks of matrices where they enter the algebra."""

import torch
from torch import Tensor

from flwr_collabedit.errors import MatrixError


def as_float64(
    name: str, matrix: Tensor, *, shape: tuple[int | None, int | None] = (None, None)
) -> Tensor:
    """Return a floating point matrix in float64, after it is checked.

    Parameters
    ----------
    name : str
        What the caller knows the matrix as; named in the error.
    matrix : Tensor
        Two-dimensional, of any floating point dtype, finite.
    shape : tuple of (int or None)
        Expected number of rows and columns; ``None`` accepts any number.

    Returns
    -------
    Tensor
        ``matrix`` itself where it is float64 already, otherwise a float64 copy on
        the same device.

    Raises
    ------
    MatrixError
        If the number of dimensions, the shape or the dtype is another, or an entry
        is infinite or not a number.
    """
    found = tuple(matrix.shape)
    fits = len(found) == 2 and all(
        expected in (None, size) for expected, size in zip(shape, found, strict=True)
    )
    if not fits:
        rows, columns = ("any" if size is None else size for size in shape)
        raise MatrixError(
            f"expected {name} of shape ({rows}, {columns}), found {found}; "
            f"keys and residuals are columns: one edit each"
        )
    if not matrix.dtype.is_floating_point:
        raise MatrixError(
            f"expected {name} of a floating point dtype, found {matrix.dtype}; "
            f"convert it with .to(torch.float64)"
        )
    # A sum is finite only if every entry is; it costs a fraction of looking at each.
    if not bool(matrix.sum().isfinite()) and not bool(torch.isfinite(matrix).all()):
        num_bad = int((~torch.isfinite(matrix)).sum())
        raise MatrixError(
            f"expected finite entries in {name}, found {num_bad} of "
            f"{matrix.numel()} infinite or not a number; look for a half precision "
            f"overflow or a diverged optimisation where it was measured"
        )
    return matrix.to(torch.float64)


def is_semidefinite(gram: Tensor, eps: float = torch.finfo(torch.float32).eps) -> bool:
    """Return whether a symmetric matrix is positive semidefinite, up to rounding.

    Parameters
    ----------
    gram : Tensor
        Shape ``(d, d)``, float64.
    eps : float
        Relative rounding of its entries, float32's by default: it moves an eigenvalue
        by at most ``d * eps`` times the largest diagonal entry.
    """
    slack = 4 * len(gram) * eps * gram.diagonal().max().clamp(min=0)
    shifted = gram.clone()
    shifted.diagonal().add_(slack + torch.finfo(gram.dtype).tiny)
    return int(torch.linalg.cholesky_ex(shifted).info) == 0


def lower_triangle(square: Tensor) -> Tensor:
    """Return the lower triangle of ``(d, d)`` row by row, ``d (d + 1) / 2`` numbers."""
    # Row by row: index arrays would need twice the memory of the matrix itself.
    return torch.cat([square[row, : row + 1] for row in range(len(square))])


def from_triangle(triangle: Tensor, size: int) -> Tensor:
    """Return the symmetric ``(size, size)`` matrix with this `lower_triangle`."""
    square = triangle.new_zeros(size, size)
    for row in range(size):
        start = row * (row + 1) // 2
        square[row, : row + 1] = triangle[start : start + row + 1]
    return square + square.tril(-1).T
