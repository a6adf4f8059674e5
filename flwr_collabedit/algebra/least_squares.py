"""The weight update: ridge regression of the residuals on the keys.

Meng et al., 2023, "Mass-Editing Memory in a Transformer", ICLR, eq. 14, in the form
that needs the sums only, with the proximal term that lets the step be repeated.
"""

import torch
from torch import Tensor

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.factors import SealedFactors
from flwr_collabedit.algebra.matrices import as_float64
from flwr_collabedit.errors import MatrixError, SingularSystemError

# A prior that was summed in float32 is symmetric to about 1e-7 of its largest entry.
_SYMMETRY_TOLERANCE = 1e-6
# A transpose read in blocks that fit the cache is several times faster than whole.
_BLOCK = 512


def solve_update(
    statistics: EditStatistics, prior: Tensor, *, delta: Tensor | None = None
) -> Tensor:
    """Return the weight update that best maps the keys to the residuals.

    Minimises ``||d K - R||^2 + tr((Delta + d) C (Delta + d)^T)`` over ``d``. The
    minimiser is ``d = (R K^T - Delta C)(C + K K^T)^-1``; with ``Delta = 0`` it is
    MEMIT's update.

    Parameters
    ----------
    statistics : EditStatistics
        ``gram = K K^T`` and ``cross = R K^T`` of all the edits.
    prior : Tensor
        ``C = lambda C0``: the second moment of the layer's keys, shape
        ``(d_key, d_key)``, symmetric, times its weight. Larger keeps old
        associations more.
    delta : Tensor or None
        ``Delta``, shape ``(d_value, d_key)``: what this round has added to the weight
        already. ``None`` stands for nothing.

    Returns
    -------
    Tensor
        ``d``, shape ``(d_value, d_key)``, float64, on the device of ``statistics``.

    Raises
    ------
    SingularSystemError
        If ``C + K K^T`` has no Cholesky factor.
    MatrixError
        If ``prior`` or ``delta`` does not fit the statistics or is not finite.

    Notes
    -----
    ``O(d_key^3 + d_value d_key^2)``. Where the rank of the edits is small,
    :func:`solve_update_woodbury` reuses one factor of ``C`` for every solve.
    """
    d_key, d_value = statistics.d_key, statistics.d_value
    prior = as_float64("prior", prior, shape=(d_key, d_key))
    check_symmetric("prior", prior)
    right_side = as_float64("cross", statistics.cross)
    if delta is not None:
        delta = as_float64("delta", delta, shape=(d_value, d_key))
        right_side = right_side - delta @ prior
    factor = factor_cholesky(prior + statistics.gram)
    return torch.cholesky_solve(right_side.T, factor).T.contiguous()


def solve_update_woodbury(factors: SealedFactors, prior_factor: Tensor) -> Tensor:
    """Return MEMIT's update from sealed factors and a factor of the prior.

    The same minimiser as :func:`solve_update` with ``Delta = 0``, by the identity
    ``d = B (I + L^T C^-1 L)^-1 L^T C^-1``: an ``r x r`` system in the place of a
    ``d_key x d_key`` one.

    Parameters
    ----------
    factors : SealedFactors
        ``L`` of shape ``(d_key, r)`` and ``B`` of shape ``(d_value, r)``. The factors
        of several clients may be joined along ``r``.
    prior_factor : Tensor
        Lower Cholesky factor of ``C``, shape ``(d_key, d_key)``, from
        :func:`factor_cholesky`; computed once for a layer.

    Returns
    -------
    Tensor
        ``d``, shape ``(d_value, d_key)``, float64.

    Raises
    ------
    MatrixError
        If a matrix does not fit or is not finite.
    SingularSystemError
        If ``I`` vanishes beside ``L^T C^-1 L``: the prior is far too weak.

    Notes
    -----
    ``O(d_key^2 r + d_value d_key r)``. Loses digits where ``K K^T`` is many orders
    of magnitude above ``C``; there :func:`solve_update` is the exact one.
    """
    d_key = factors.key_factor.shape[0]
    key_factor = as_float64("key_factor", factors.key_factor)
    residual_factor = as_float64("residual_factor", factors.residual_factor)
    lower = as_float64("prior_factor", prior_factor, shape=(d_key, d_key))
    whitened = torch.linalg.solve_triangular(lower, key_factor, upper=False)
    explained = torch.linalg.solve_triangular(lower.T, whitened, upper=True)
    system = whitened.T @ whitened
    system.diagonal().add_(1.0)
    return residual_factor @ torch.cholesky_solve(explained.T, factor_cholesky(system))


def factor_cholesky(matrix: Tensor) -> Tensor:
    """Return the lower Cholesky factor of a symmetric positive definite matrix.

    Parameters
    ----------
    matrix : Tensor
        Shape ``(d, d)``, finite; its lower triangle is read.

    Returns
    -------
    Tensor
        Lower triangular, shape ``(d, d)``, float64.

    Raises
    ------
    SingularSystemError
        If a pivot is not positive, or so small beside its diagonal entry that only
        rounding keeps it from zero.
    """
    matrix = as_float64("matrix", matrix, shape=(None, matrix.shape[0]))
    factor: Tensor
    factor, failed_at = torch.linalg.cholesky_ex(matrix)
    if int(failed_at):
        index = int(failed_at) - 1
        raise _singular(index, _pivot_value(matrix, index), matrix)
    # d * eps is the backward error of the factorisation: a pivot below it is noise.
    pivots, diagonal = factor.diagonal().square(), matrix.diagonal()
    noise = len(matrix) * torch.finfo(torch.float64).eps
    lost = pivots <= noise * diagonal
    if bool(lost.any()):
        index = int((pivots / diagonal).argmin())
        raise _singular(index, float(pivots[index]), matrix)
    return factor


def _pivot_value(matrix: Tensor, index: int) -> float:
    """Return pivot ``index`` of a factorisation that stopped there."""
    leading = torch.linalg.cholesky(matrix[:index, :index])
    row = torch.linalg.solve_triangular(
        leading, matrix[index, :index, None], upper=False
    )
    return float(matrix[index, index] - row.square().sum())


def _singular(index: int, pivot: float, matrix: Tensor) -> SingularSystemError:
    return SingularSystemError(
        f"expected a positive definite matrix, found pivot {pivot:.3e} at index "
        f"{index} of {len(matrix)} (diagonal entry {float(matrix[index, index]):.3e}); "
        f"estimate the second moment from more keys than d_key, or raise its weight"
    )


def check_symmetric(name: str, matrix: Tensor) -> None:
    """Check that a square matrix is symmetric, to the precision of float32 sums.

    Raises
    ------
    MatrixError
        Calling the matrix ``name``.
    """
    # The Cholesky factor reads one triangle, so the other would be lost in silence.
    if matrix.numel() == 0:
        return
    blocks = range(0, len(matrix), _BLOCK)
    gap = max(_mirror_gap(matrix, i, j) for i in blocks for j in blocks if j <= i)
    low, high = torch.aminmax(matrix)
    size = max(abs(float(low)), abs(float(high)))
    if gap > _SYMMETRY_TOLERANCE * size:
        raise MatrixError(
            f"expected a symmetric {name}, found entries that differ by {gap:.3e} "
            f"from their mirror image (largest entry {size:.3e})"
        )


def _mirror_gap(matrix: Tensor, row: int, column: int) -> float:
    block = matrix[row : row + _BLOCK, column : column + _BLOCK]
    mirror = matrix[column : column + _BLOCK, row : row + _BLOCK].T
    return float(torch.dist(block, mirror, p=float("inf")))
