"""EditAvg: the baseline of FedLEKE, appendix B."""

from flwr_collabedit.algebra.merging import WeightedSum
from flwr_collabedit.strategies.merge_deltas import (
    MergeDeltasStrategy,
    Merger,
    SumMerger,
)


class EditAvg(MergeDeltasStrategy):
    """Average the deltas, each weighted by its client's share of the round's edits.

    `flwr_collabedit.algebra.merging.edit_average`, summed as replies arrive. The
    parameters are those of `MergeDeltasStrategy`.
    """

    def merger(self, shape: tuple[int, int]) -> Merger:
        """Return a sum weighted by the number of edits."""
        return SumMerger(shape, weight=float, finish=WeightedSum.mean)
