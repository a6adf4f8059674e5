"""Task-Arithmetic: the scaled sum of the clients' deltas."""

from typing import Any

from flwr_collabedit.algebra.merging import TASK_ARITHMETIC_SCALE
from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.strategies.merge_deltas import (
    MergeDeltasStrategy,
    Merger,
    SumMerger,
)


class TaskArithmetic(MergeDeltasStrategy):
    """Add ``scale`` times the sum of the deltas.

    `flwr_collabedit.algebra.merging.task_arithmetic`, summed as replies arrive.

    Parameters
    ----------
    model : EditedModel
        See `EditStrategy`.
    scale : float
        ``lambda`` > 0; 1, the plain sum, is that of CollabEdit's published code.
    **options
        See `MergeDeltasStrategy`.
    """

    def __init__(
        self,
        model: EditedModel,
        *,
        scale: float = TASK_ARITHMETIC_SCALE,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        if scale <= 0:
            raise ConfigurationError(f"Expected a scale above 0, found {scale}.")
        self.scale = scale

    @property
    def identity(self) -> dict[str, str]:
        """What must be the same for a run to go on from a checkpoint."""
        return {**super().identity, "scale": str(self.scale)}

    def merger(self, shape: tuple[int, int]) -> Merger:
        """Return a sum that is scaled at the end."""
        return SumMerger(
            shape, weight=lambda _: 1.0, finish=lambda found: self.scale * found.total
        )
