"""Simple-Average: the plain mean of the clients' deltas."""

from flwr_collabedit.algebra.merging import WeightedSum
from flwr_collabedit.strategies.merge_deltas import (
    MergeDeltasStrategy,
    Merger,
    SumMerger,
)


class SimpleAverage(MergeDeltasStrategy):
    """Divide the sum of the deltas by the number of clients that replied.

    `flwr_collabedit.algebra.merging.simple_average`, summed as replies arrive. A client
    without edits counts. CollabEdit's published code divides by 10 whatever the number
    of clients. The parameters are those of `MergeDeltasStrategy`.
    """

    def merger(self, shape: tuple[int, int]) -> Merger:
        """Return a sum in which every client weighs one."""
        return SumMerger(shape, weight=lambda _: 1.0, finish=WeightedSum.mean)
