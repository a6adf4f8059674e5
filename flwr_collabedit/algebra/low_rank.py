"""A cumulative delta in low-rank form: small while the edits are few."""

import torch
from torch import Tensor


def extended_basis(basis: Tensor, columns: Tensor) -> Tensor:
    """Return an orthonormal basis of what ``basis`` and ``columns`` span together.

    Parameters
    ----------
    basis, columns : Tensor
        ``(d_value, r)`` and ``(d_value, n)``, float64. A delta that writes residuals
        ``R`` has its columns in the span of ``R``.

    Returns
    -------
    Tensor
        ``(d_value, min(d_value, r + n))``, float64.
    """
    joined = torch.cat([basis, columns], dim=1)
    found: Tensor = torch.linalg.qr(joined, mode="reduced").Q
    return found


def to_low_rank(delta: Tensor, basis: Tensor) -> Tensor:
    """Return the coefficients ``(r, d_key)`` of a delta in a basis of its columns.

    ``basis @ coefficients`` is ``delta`` to rounding, provided that the basis spans its
    columns.
    """
    return basis.T @ delta
