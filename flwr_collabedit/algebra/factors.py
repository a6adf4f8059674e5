"""Sealed factors: a client's two matrices, lossless, at the size of its edits.

``n`` edits make matrices of rank ``r <= n``, so ``(d_key + d_value) r`` numbers carry
what ``d_key^2 + d_key d_value`` do. The factor of the gram matrix is its pivoted
Cholesky factor, a function of the gram matrix alone: it tells a reader of the factors
nothing that the two matrices did not, in particular not which edit is which column
(Higham, 2002, "Accuracy and Stability of Numerical Algorithms", section 10.3).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.matrices import as_float64
from flwr_collabedit.algebra.pivoted_cholesky import (
    orthogonalise_rows,
    pivoted_cholesky,
)
from flwr_collabedit.errors import MatrixError

# Rank decision, relative to the largest row norm of K. Rounding leaves a row that
# should vanish with a norm of at most 2.4e-15 (measured up to n = 2000), and dropping
# rows below 1e-13 changes neither product by more than that. Two float32 keys that
# differ in the last bit of one entry differ by 6e-8 of the entry: far above, not lost.
KEY_TOLERANCE = 1e-13

# The same decision from K K^T, relative to its largest diagonal entry. Entries are
# rounded at 1e-16, so a squared row norm below 1e-13 is noise: a direction of K
# smaller than 3e-7 of the largest cannot be told from zero once K is gone.
GRAM_TOLERANCE = 1e-13


@dataclass(frozen=True, eq=False)
class SealedFactors:
    """A factored form of :class:`EditStatistics`.

    Attributes
    ----------
    key_factor : Tensor
        ``L``, shape ``(d_key, r)``, floating point, with ``L L^T = K K^T``.
    residual_factor : Tensor
        ``B``, shape ``(d_value, r)``, with ``B L^T = R K^T``.
    num_edits : int
        How many edits the factors stand for; at least ``r``.

    Raises
    ------
    MatrixError
        If the two factors are not matrices with the same number of columns.
    """

    key_factor: Tensor
    residual_factor: Tensor
    num_edits: int

    def __post_init__(self) -> None:
        key, residual = tuple(self.key_factor.shape), tuple(self.residual_factor.shape)
        if len(key) != 2 or len(residual) != 2 or key[1] != residual[1]:
            raise MatrixError(
                f"expected key_factor (d_key, rank) and residual_factor "
                f"(d_value, rank), found {key} and {residual}"
            )

    @property
    def rank(self) -> int:
        """Number of columns of both factors."""
        return self.key_factor.shape[1]

    def statistics(self) -> EditStatistics:
        """Return the two matrices that the factors stand for, in float64.

        Raises
        ------
        MatrixError
            If a factor is not floating point or has an entry that is not finite.
        """
        key_factor = as_float64("key_factor", self.key_factor)
        residual_factor = as_float64("residual_factor", self.residual_factor)
        return EditStatistics(
            gram=key_factor @ key_factor.T,
            cross=residual_factor @ key_factor.T,
            num_edits=self.num_edits,
        )


def seal(
    keys: Tensor, residuals: Tensor, *, tolerance: float = KEY_TOLERANCE
) -> SealedFactors:
    """Return the canonical factors of ``K K^T`` and ``R K^T``, from ``K`` and ``R``.

    Pivoted Cholesky of ``K K^T``, computed without forming it: Gram-Schmidt on the
    rows of ``K``, the longest remaining row first, gives ``Q`` with orthonormal
    columns that span them. Then ``L = K Q`` and ``B = R Q``. The diagonal of ``L``
    in pivot order is positive, which fixes the signs.

    Parameters
    ----------
    keys : Tensor
        ``K``, shape ``(d_key, n)``, floating point, finite; ``n = 0`` is allowed.
    residuals : Tensor
        ``R``, shape ``(d_value, n)``.
    tolerance : float
        Rows that are left shorter than ``tolerance`` times the longest row of ``K``
        count as dependent. Exact copies of a key add no column.

    Returns
    -------
    SealedFactors
        In float64, of the rank that was found, on the device of ``keys``.

    Raises
    ------
    MatrixError
        If a matrix is not finite, not floating point or of another shape.

    Notes
    -----
    ``O(d_key n r)`` operations, with one pass over ``K`` for each of the ``r``
    columns; needs ``(d_key + n) r`` numbers of memory besides ``K``.
    """
    keys = as_float64("keys", keys)
    num_edits = keys.shape[1]
    residuals = as_float64("residuals", residuals, shape=(None, num_edits))
    basis, factor_rows = orthogonalise_rows(keys, tolerance)
    return SealedFactors(
        key_factor=factor_rows.T.contiguous(),
        residual_factor=residuals @ basis.T,
        num_edits=num_edits,
    )


def seal_statistics(
    statistics: EditStatistics, *, tolerance: float = GRAM_TOLERANCE
) -> SealedFactors:
    """Return the same factors as :func:`seal`, from the two matrices alone.

    For whoever holds only the sums. Less exact than :func:`seal`: directions of the
    keys below ``sqrt(tolerance)`` of the largest are lost in the gram matrix already.

    Parameters
    ----------
    statistics : EditStatistics
        With a positive semidefinite ``gram``.
    tolerance : float
        Diagonal entries that are left smaller than ``tolerance`` times the largest
        diagonal entry of ``gram`` count as zero.

    Returns
    -------
    SealedFactors
        In float64, of the rank that was found.

    Raises
    ------
    MatrixError
        If a matrix has an entry that is not finite.
    """
    gram = as_float64("gram", statistics.gram)
    cross = as_float64("cross", statistics.cross)
    pivots, factor_rows = pivoted_cholesky(gram, tolerance)
    # B L^T = cross holds in particular in the pivot columns, where L is triangular.
    residual_factor = torch.linalg.solve_triangular(
        factor_rows[:, pivots], cross[:, pivots], upper=True, left=False
    )
    return SealedFactors(
        key_factor=factor_rows.T.contiguous(),
        residual_factor=residual_factor,
        num_edits=statistics.num_edits,
    )
