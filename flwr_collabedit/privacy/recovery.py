"""How many of the edited subjects an attacker finds, against chance."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

_Z_95 = 1.959964
_MORE_GUESSES = 5


class Found(NamedTuple):
    """What an attacker's ranking finds of one upload, as shares from 0 to 1.

    Attributes
    ----------
    first : float
        Whether the first guess was edited: the best of all readings, as in the paper.
    top_1, top_5 : float
        Share of the edited subjects among as many guesses as there are, or 5 times as
        many. For one edit they are what the names say.
    whole : float
        Whether all of them are among as many guesses as there are.
    """

    first: float
    top_1: float
    top_5: float
    whole: float

    @classmethod
    def of(cls, scores: Tensor, members: Sequence[int]) -> Self:
        """Return what the candidates' scores, ``(subject,)``, say of the members.

        Equal scores are ordered by number, which knows nothing of the members.
        """
        ranking = torch.argsort(scores, descending=True, stable=True).tolist()
        edited, count = set(members), len(members)

        def share(guesses: int) -> float:
            return len(edited.intersection(ranking[:guesses])) / count

        top_1 = share(count)
        first = float(ranking[0] in edited)
        return cls(first, top_1, share(_MORE_GUESSES * count), float(top_1 == 1))

    @classmethod
    def by_chance(cls, num_edits: int, num_candidates: int) -> Self:
        """Return what is expected of a random ranking."""
        share = num_edits / num_candidates
        return cls(
            share,
            share,
            min(1.0, _MORE_GUESSES * share),
            1 / math.comb(num_candidates, num_edits),
        )


@dataclass(frozen=True)
class Rate:
    """A share and its 95 % interval, from 0 to 1.

    Examples
    --------
    >>> str(Rate.of([1.0] * 100))
    '100.0 (96.3-100.0)'
    """

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Return the rate of independent values from 0 to 1, with Wilson's interval.

        Made for values that are 0 or 1; too wide for shares in between, which vary
        less. Unlike a t-interval it is not empty where all values are equal
        (Wilson, "Probable inference", J. Am. Stat. Assoc. 22, 1927).
        """
        found = list(values)
        count, mean = len(found), math.fsum(found) / len(found)
        shrink = 1 / (1 + _Z_95**2 / count)
        centre = shrink * (mean + _Z_95**2 / (2 * count))
        spread = mean * (1 - mean) / count + _Z_95**2 / (4 * count**2)
        half = shrink * _Z_95 * math.sqrt(max(spread, 0.0))
        return cls(mean, max(0.0, centre - half), min(1.0, centre + half))

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} ({100 * self.low:.1f}-{100 * self.high:.1f})"
