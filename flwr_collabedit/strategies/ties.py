"""TIES-Merging of the clients' deltas."""

from typing import Any

import torch
from torch import Tensor

from flwr_collabedit.algebra.merging import (
    TIES_DENSITY,
    TIES_SCALE,
    check_density,
    ties,
)
from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.strategies.merge_deltas import MergeDeltasStrategy, Merger


class TiesMerging(MergeDeltasStrategy):
    """Trim every delta, elect each entry's sign, average the entries that agree.

    `flwr_collabedit.algebra.merging.ties` on each weight. The signs are known only when
    all clients have replied, so that the server holds every client's deltas: its memory
    grows by the edited weights' size, in the wire dtype, with every client.

    Parameters
    ----------
    model : EditedModel
        See `EditStrategy`.
    density : float
        Share of each delta's entries that is kept, in (0, 1]; 0.2 is the authors'.
    scale : float
        Factor of the result > 0; 1 is the authors' without a validation set,
        CollabEdit's published code has 0.4.
    **options
        See `MergeDeltasStrategy`.
    """

    def __init__(
        self,
        model: EditedModel,
        *,
        density: float = TIES_DENSITY,
        scale: float = TIES_SCALE,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        check_density(density)
        if scale <= 0:
            raise ConfigurationError(f"Expected a scale above 0, found {scale}.")
        self.density, self.scale = density, scale

    @property
    def identity(self) -> dict[str, str]:
        """What must be the same for a run to go on from a checkpoint."""
        own = {"density": str(self.density), "scale": str(self.scale)}
        return {**super().identity, **own}

    def merger(self, shape: tuple[int, int]) -> Merger:
        """Return a merger that holds all deltas in the dtype in which they came."""
        dtype = torch.float32 if self.options.wire_dtype == "float32" else torch.float64
        return _TiesMerger(self.density, self.scale, dtype)


class _TiesMerger(Merger):
    def __init__(self, density: float, scale: float, dtype: torch.dtype) -> None:
        self._density, self._scale, self._dtype = density, scale, dtype
        self._deltas: list[Tensor] = []

    def add(self, delta: Tensor, num_edits: int) -> None:
        """Keep the delta."""
        self._deltas.append(delta.to(self._dtype))

    def merged(self) -> Tensor:
        """Return the merged delta."""
        return ties(self._deltas, self._density, self._scale)
