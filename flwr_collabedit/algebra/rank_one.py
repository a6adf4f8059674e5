"""ROME's update of a weight: one key is made to give one value.

Meng et al. "Locating and Editing Factual Associations in GPT", NeurIPS 2022, eq. 2.
"""

import torch
from torch import Tensor
from torch.linalg import vector_norm

from flwr_collabedit.algebra.matrices import as_float64
from flwr_collabedit.errors import MatrixError, SingularSystemError


def key_direction(key: Tensor, moment_factor: Tensor | None = None) -> Tensor:
    """Return ``u = C0^-1 k`` of length one: what the update reacts to.

    Of all updates that write the key, the one along ``u`` changes least, in the mean,
    what the keys behind ``C0`` give.

    Parameters
    ----------
    key : Tensor
        ``k``, shape ``(d_key,)``, not zero.
    moment_factor : Tensor or None
        Lower Cholesky factor of ``C0``, ``(d_key, d_key)``, from
        `flwr_collabedit.algebra.least_squares.factor_cholesky`; ``None`` for
        ``u = k``. A factor of a multiple of ``C0`` gives the same.

    Returns
    -------
    Tensor
        ``(d_key,)``, float64.

    Raises
    ------
    MatrixError
        If the key is zero or not finite, or the factor does not fit it.
    """
    column = as_float64("key", key[:, None])
    if not bool(column.any()):
        raise MatrixError(
            f"expected a key, found {len(key)} zeros; nothing can be written under it. "
            "Edit another layer."
        )
    if moment_factor is not None:
        size = len(key)
        lower = as_float64("moment_factor", moment_factor, shape=(size, size))
        column = torch.cholesky_solve(column, lower)
    direction: Tensor = column[:, 0] / vector_norm(column)
    return direction


def rank_one_update(residual: Tensor, key: Tensor, direction: Tensor) -> Tensor:
    """Return ``Delta = r u^T / (k . u)``, so that ``Delta k = r``.

    Parameters
    ----------
    residual : Tensor
        ``r = v* - W k``, shape ``(d_value,)``: what the key is to give in addition.
    key : Tensor
        ``k``, shape ``(d_key,)``.
    direction : Tensor
        ``u``, shape ``(d_key,)``, see `key_direction`. With the direction of ``k``
        itself, the update is the limit of MEMIT's for one edit and ``lambda -> 0``
        (`flwr_collabedit.algebra.least_squares.solve_update`).

    Returns
    -------
    Tensor
        ``(d_value, d_key)``, float64, of rank one.

    Raises
    ------
    MatrixError
        If a vector is not finite.
    SingularSystemError
        If ``k . u`` is zero to rounding. Where it is small beside the lengths of ``k``
        and ``u``, as may be if ``u`` belongs to another key, the update is large: these
        are the edits that disable a model.
    """
    residual = as_float64("residual", residual[:, None])
    key = as_float64("key", key[:, None])
    direction = as_float64("direction", direction[:, None])
    overlap = float((key * direction).sum())
    noise = len(key) * torch.finfo(torch.float64).eps
    if abs(overlap) <= noise * float(vector_norm(key) * vector_norm(direction)):
        raise SingularSystemError(
            f"expected a key along the direction, found them orthogonal (product "
            f"{overlap:.3e}), so that no update along it writes the key; use "
            "consistent keys or other contexts"
        )
    return residual @ direction.T / overlap
