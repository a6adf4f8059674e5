"""What a set of edits says about one layer's weight: two sums over the edits.

Ridge regression of the residuals on the keys needs nothing else, so clients, rounds
and withdrawals are additions and subtractions of these two matrices
(Meng et al., 2023, "Mass-Editing Memory in a Transformer", ICLR, eq. 14;
Zheng et al., 2025, "CollabEdit", ICLR, the merge rule).
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from flwr_collabedit.algebra.matrices import as_float64
from flwr_collabedit.errors import MatrixError


@dataclass(frozen=True, eq=False)
class EditStatistics:
    """The sufficient statistics of a set of edits at one layer.

    They form a commutative group: ``+`` pools two sets of edits, ``-`` withdraws one
    set from another, ``zero`` is the set without edits. Both operations return new
    statistics and leave their operands as they are.

    Attributes
    ----------
    gram : Tensor
        ``K K^T``, shape ``(d_key, d_key)``, float64, symmetric.
    cross : Tensor
        ``R K^T``, shape ``(d_value, d_key)``, float64, on the device of ``gram``.
    num_edits : int
        How many columns ``K`` and ``R`` had.

    Raises
    ------
    MatrixError
        If a matrix is not float64 or the shapes do not belong together.
    """

    gram: Tensor
    cross: Tensor
    num_edits: int

    def __post_init__(self) -> None:
        for name, matrix in (("gram", self.gram), ("cross", self.cross)):
            if matrix.dtype != torch.float64:
                raise MatrixError(
                    f"expected {name} in float64, found {matrix.dtype}; sums over "
                    f"clients need the precision: convert it before adding"
                )
        gram, cross = tuple(self.gram.shape), tuple(self.cross.shape)
        if len(gram) != 2 or gram[0] != gram[1] or cross[1:] != gram[1:]:
            raise MatrixError(
                f"expected gram (d_key, d_key) and cross (d_value, d_key), found "
                f"{gram} and {cross}; build them with EditStatistics.from_pairs"
            )

    @classmethod
    def zero(
        cls, d_value: int, d_key: int, device: torch.device | str | None = None
    ) -> Self:
        """Return the statistics of no edits: two matrices of zeros."""
        gram = torch.zeros(d_key, d_key, dtype=torch.float64, device=device)
        return cls(gram=gram, cross=gram.new_zeros(d_value, d_key), num_edits=0)

    @classmethod
    def from_pairs(cls, keys: Tensor, residuals: Tensor) -> Self:
        """Return the statistics of ``n`` edits, given as columns.

        Parameters
        ----------
        keys : Tensor
            ``K``, shape ``(d_key, n)``, floating point, finite; ``n = 0`` is allowed.
        residuals : Tensor
            ``R``, shape ``(d_value, n)``: what the layer's output must still gain at
            each key.

        Raises
        ------
        MatrixError
            If a matrix is not finite, not floating point or of another shape.
        """
        keys = as_float64("keys", keys)
        num_edits = keys.shape[1]
        residuals = as_float64("residuals", residuals, shape=(None, num_edits))
        return cls(keys @ keys.T, residuals @ keys.T, num_edits)

    def __add__(self, other: Self) -> Self:
        self._check_same_layer(other)
        return type(self)(
            self.gram + other.gram,
            self.cross + other.cross,
            self.num_edits + other.num_edits,
        )

    def __sub__(self, other: Self) -> Self:
        self._check_same_layer(other)
        return type(self)(
            self.gram - other.gram,
            self.cross - other.cross,
            self.num_edits - other.num_edits,
        )

    @property
    def d_key(self) -> int:
        """Width of the layer's input."""
        return self.gram.shape[0]

    @property
    def d_value(self) -> int:
        """Width of the layer's output."""
        return self.cross.shape[0]

    def _check_same_layer(self, other: Self) -> None:
        # Without this, torch would broadcast a layer of width 1 over any other.
        if self.cross.shape != other.cross.shape:
            raise MatrixError(
                f"expected statistics of a layer of (d_value, d_key) = "
                f"{tuple(self.cross.shape)}, found {tuple(other.cross.shape)}; "
                f"only statistics of one layer of one model can be combined"
            )
