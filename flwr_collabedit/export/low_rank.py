"""A delta as the product of two thin factors, with the error that this leaves.

The range is found by random projections of what is not yet explained, a block at a
time (Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 53,
2011, section 4.4), until nothing above the tolerance is left: the cost grows with the
rank, a full decomposition's with the matrix. The randomness cannot cost accuracy, since
what is left is computed, not estimated.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

TOLERANCE = 1e-7
"""Relative error below which a delta counts as explained; float32 factors lose more."""

_FIRST_BLOCK = 64


@dataclass(frozen=True)
class LowRank:
    """The two factors of a delta, ``delta ~ left @ right``.

    Attributes
    ----------
    left : Tensor
        Shape ``(d_value, rank)``.
    right : Tensor
        Shape ``(rank, d_key)``.
    relative_error : float
        ``||left @ right - delta|| / ||delta||`` in the Frobenius norm, of the factors
        as they are stored; 0 for a delta of zero.
    """

    left: Tensor
    right: Tensor
    relative_error: float

    @property
    def rank(self) -> int:
        """Columns of ``left``, rows of ``right``; may be 0."""
        return self.left.shape[1]


def factor(
    delta: Tensor,
    *,
    max_rank: int | None = None,
    dtype: torch.dtype = torch.float32,
    tolerance: float = TOLERANCE,
) -> LowRank:
    """Return the factors of a delta, of the least rank that explains it.

    Both factors carry the square root of the singular values, so that neither leaves
    the range of a short floating point type.

    Parameters
    ----------
    delta : Tensor
        Shape ``(d_value, d_key)``, any floating dtype; sums are in float64, on its
        device, in memory of about three deltas.
    max_rank : int or None
        Keep no more than the largest ``max_rank`` singular values, >= 1.
    dtype : torch.dtype
        Of the factors.
    tolerance : float
        The rank is the least whose left out singular values have a norm of at most
        ``tolerance * ||delta||``, > 0. Below 1e-15 it counts rounding as rank.
    """
    delta = delta.double()
    norm = float(delta.norm())
    if norm == 0:
        d_value, d_key = delta.shape
        return LowRank(
            delta.new_zeros(d_value, 0, dtype=dtype),
            delta.new_zeros(0, d_key, dtype=dtype),
            0.0,
        )
    # A tenth: what the range leaves out should not be what decides the rank.
    basis = _range(delta, 0.1 * tolerance * norm)
    turned, singular, right = torch.linalg.svd(basis.T @ delta, full_matrices=False)
    rank = min(_rank(singular, tolerance * norm), max_rank or len(singular))
    root = singular[:rank].sqrt()
    stored_left = (basis @ turned[:, :rank] * root).to(dtype)
    stored_right = (root[:, None] * right[:rank]).to(dtype)
    left_out = delta - stored_left.double() @ stored_right.double()
    return LowRank(stored_left, stored_right, float(left_out.norm()) / norm)


def _range(delta: Tensor, left_out: float) -> Tensor:
    """Return orthonormal columns that span the delta but for a norm of ``left_out``."""
    generator = torch.Generator(delta.device).manual_seed(0)
    rest = delta.clone()
    blocks: list[Tensor] = []
    width = num_columns = _FIRST_BLOCK
    while float(rest.norm()) > left_out:
        if num_columns > min(delta.shape) // 2:
            return _orthonormal(delta)
        probes = torch.randn(
            delta.shape[1],
            width,
            generator=generator,
            dtype=delta.dtype,
            device=delta.device,
        )
        blocks.append(_orthonormal(rest @ probes))
        rest -= blocks[-1] @ (blocks[-1].T @ rest)
        # Blocks double: few passes over the matrix, at most twice the columns needed.
        width, num_columns = num_columns, 2 * num_columns
    # Of a block wider than what was left, some columns may repeat those before.
    return _orthonormal(torch.cat(blocks, dim=1))


def _orthonormal(columns: Tensor) -> Tensor:
    basis: Tensor = torch.linalg.qr(columns).Q
    return basis


def _rank(singular: Tensor, left_out: float) -> int:
    """Return how many singular values to keep; the others' norm is within the limit."""
    tails = singular.square().flip(0).cumsum(0).flip(0).sqrt()
    return int((tails > left_out).sum())
