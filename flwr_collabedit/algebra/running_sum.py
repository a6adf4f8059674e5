"""Sums whose result does not show in which order the terms came.

A sum is held as an unevaluated pair ``total + low`` of float64 tensors, which carries
about 106 bits (Knuth, "The Art of Computer Programming", vol. 2, 4.2.2, theorem B;
Dekker, 1971, "A floating-point technique for extending the available precision").
Another order moves it by some ``2^-106`` of the terms' size, and ``total``, which is
the pair rounded once, only where it lies that near a rounding boundary. So the replies
of a round, or the rounds of a run, give the same bits in any order, and what is
subtracted again leaves no trace.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from flwr_collabedit.algebra.edit_statistics import EditStatistics


@dataclass(frozen=True, eq=False)
class RunningSum:
    """A sum of float64 tensors of one shape.

    Attributes
    ----------
    total : Tensor
        The sum, rounded to float64.
    low : Tensor
        What is left of the exact sum, at most half a unit in the last place of
        ``total``.
    """

    total: Tensor
    low: Tensor

    @classmethod
    def of(cls, term: Tensor) -> Self:
        """Return the sum of one term."""
        return cls(term, torch.zeros_like(term))

    def plus(self, term: Tensor) -> Self:
        """Return the sum with another term, of the same shape."""
        rough, error = _two_sum(self.total, term)
        # After cancellation the low part may be the larger one: Dekker's shorter sum
        # of the two would lose bits then.
        total, low = _two_sum(rough, self.low + error)
        return type(self)(total, low)

    def minus(self, term: Tensor) -> Self:
        """Return the sum without a term."""
        return self.plus(-term)

    def __add__(self, other: Self) -> Self:
        return self.plus(other.total).plus(other.low)


@dataclass(frozen=True, eq=False)
class StatisticsSum:
    """A running sum of edit statistics of one layer.

    Attributes
    ----------
    gram, cross : RunningSum
        Of shapes ``(d_key, d_key)`` and ``(d_value, d_key)``.
    num_edits : int
        How many edits are in it.
    """

    gram: RunningSum
    cross: RunningSum
    num_edits: int = 0

    @classmethod
    def zero(cls, d_value: int, d_key: int) -> Self:
        """Return the sum without edits."""
        return cls.of(EditStatistics.zero(d_value, d_key))

    @property
    def total(self) -> EditStatistics:
        """The sum, in float64."""
        return EditStatistics(self.gram.total, self.cross.total, self.num_edits)

    @classmethod
    def of(cls, statistics: EditStatistics) -> Self:
        """Return the sum of one set of edits."""
        gram, cross = RunningSum.of(statistics.gram), RunningSum.of(statistics.cross)
        return cls(gram, cross, statistics.num_edits)

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.gram + other.gram,
            self.cross + other.cross,
            self.num_edits + other.num_edits,
        )

    def plus(self, term: EditStatistics) -> Self:
        """Return the sum with other edits."""
        return type(self)(
            self.gram.plus(term.gram),
            self.cross.plus(term.cross),
            self.num_edits + term.num_edits,
        )

    def minus(self, term: EditStatistics) -> Self:
        """Return the sum with some of its edits withdrawn."""
        return type(self)(
            self.gram.minus(term.gram),
            self.cross.minus(term.cross),
            self.num_edits - term.num_edits,
        )


def _two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``a + b`` rounded, and the exact error of that (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)
