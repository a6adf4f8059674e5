"""What later rounds do to earlier edits: a matrix of efficacies and what it says.

Chaudhry et al., "Riemannian Walk for Incremental Learning", ECCV 2018: forgetting.
Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017:
    backward transfer, the negative of :attr:`EfficacyMatrix.mean_loss`.
Huang, Liu et al., "Reasons and Solutions for the Decline in Model Performance after
    Editing" (D4S), NeurIPS 2024, section 4.1: the "overall evaluation" is
    :attr:`EfficacyMatrix.overall` with checkpoints for rounds; "the degree of
    forgetting" is the last checkpoint's row, or any other grouping of its scores.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Self

from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.evaluation.edit_groups import group_means

Value = float | None
"""``None`` where nothing was measured."""


@dataclass(frozen=True)
class EfficacyMatrix:
    """``M[r, s]``: efficacy, after round ``r``, of the edits of round ``s <= r``.

    Rounds count from 0, there are ``T`` of them; any unit, such as percent. Make it
    with :meth:`of` or :meth:`from_edits`, which check it.

    Attributes
    ----------
    rows : tuple of tuple of float or None
        Row ``r`` has ``r + 1`` entries; ``None`` where round ``r`` was not evaluated or
        round ``s`` had no edits.
    sizes : tuple of int
        Edits of each round.

    Examples
    --------
    >>> matrix = EfficacyMatrix.of([[100], [80, 100], [50, 90, 100]])
    >>> matrix.losses, matrix.forgetting, matrix.overall
    ((50.0, 10.0), (50.0, 10.0), (100.0, 90.0, 80.0))
    """

    rows: tuple[tuple[Value, ...], ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(
        cls, rows: Sequence[Sequence[Value]], sizes: Sequence[int] | None = None
    ) -> Self:
        """Return the checked matrix.

        Parameters
        ----------
        rows : sequence of sequence of float or None
            At least one. What is past the diagonal may be left out, ``None`` or NaN;
            NaN is ``None`` elsewhere too.
        sizes : sequence of int or None
            Edits of each round, >= 0; ``None`` for rounds of equal size.

        Raises
        ------
        ConfigurationError
            If a row is too short, has a value past the diagonal or one that is
            infinite, or the sizes are not one for each round.
        """
        if not rows:
            raise ConfigurationError("Expected at least one round, found none.")
        counts = tuple(sizes) if sizes is not None else (1,) * len(rows)
        if len(counts) != len(rows) or min(counts) < 0:
            raise ConfigurationError(
                f"Expected a number of edits, at least 0, for each of {len(rows)} "
                f"rounds, found {list(counts)}."
            )
        return cls(tuple(_row(r, row) for r, row in enumerate(rows)), counts)

    @classmethod
    def from_edits(cls, scores: Sequence[Sequence[float]], ends: Sequence[int]) -> Self:
        """Return the matrix of single edits' scores.

        Parameters
        ----------
        scores : sequence of sequence of float
            Of each round, the scores on the model after it of all edits so far, in the
            order of editing; empty where the round was not evaluated.
        ends : sequence of int
            Number of edits so far after each round, ascending; for D4S's protocols
            `flwr_collabedit.evaluation.edit_groups.checkpoints` gives them.

        Raises
        ------
        ConfigurationError
            If a round has neither no score nor one for every edit so far.
        """
        if len(scores) != len(ends):
            raise ConfigurationError(
                f"Expected the scores of {len(ends)} rounds, found {len(scores)}."
            )
        rows: list[Sequence[Value]] = []
        for r, (values, end) in enumerate(zip(scores, ends, strict=True)):
            if len(values) not in (0, end):
                raise ConfigurationError(
                    f"Round {r}: expected a score for each of the {end} edits so far, "
                    f"or none, found {len(values)}."
                )
            unknown = [None] * (r + 1)
            rows.append(group_means(values, ends[: r + 1]) if values else unknown)
        return cls.of(rows, [end - start for start, end in pairwise((0, *ends))])

    @property
    def last_row(self) -> tuple[Value, ...]:
        """``M[T-1, s]``: what is left of each round's edits in the end."""
        return self.rows[-1]

    @property
    def first_round(self) -> tuple[Value, ...]:
        """``M[r, 0]``: the first round's edits after each round."""
        return tuple(row[0] for row in self.rows)

    @property
    def overall(self) -> tuple[Value, ...]:
        """Efficacy of all edits so far after each round (D4S's overall evaluation).

        ``sum_s n_s M[r, s] / sum_s n_s`` over the rounds ``s <= r`` that were measured.
        """
        return tuple(self._weighted_mean(row) for row in self.rows)

    @property
    def losses(self) -> tuple[Value, ...]:
        """``M[s, s] - M[T-1, s]`` for each ``s < T-1``: lost since it was edited."""
        return tuple(
            _difference(self.rows[s][s], last)
            for s, last in enumerate(self.last_row[:-1])
        )

    @property
    def forgetting(self) -> tuple[Value, ...]:
        """``max_{s <= r < T-1} M[r, s] - M[T-1, s]`` for each ``s < T-1``.

        Lost since it was known best; negative where the last round is the best.
        """
        return tuple(
            _difference(
                max(_known(row[s] for row in self.rows[s:-1]), default=None), last
            )
            for s, last in enumerate(self.last_row[:-1])
        )

    @property
    def mean_loss(self) -> Value:
        """Mean of :attr:`losses` over rounds; ``None`` where there is none."""
        return _mean(self.losses)

    @property
    def mean_forgetting(self) -> Value:
        """Mean of :attr:`forgetting` over rounds; ``None`` where there is none."""
        return _mean(self.forgetting)

    def _weighted_mean(self, row: Sequence[Value]) -> Value:
        pairs = [
            (size, value)
            for size, value in zip(self.sizes, row, strict=False)
            if value is not None
        ]
        total = sum(size for size, _ in pairs)
        return sum(size * value for size, value in pairs) / total if total else None


def _row(number: int, row: Sequence[Value]) -> tuple[Value, ...]:
    values = [None if v is None or math.isnan(v) else float(v) for v in row]
    inside, past = values[: number + 1], values[number + 1 :]
    if (
        len(inside) <= number
        or _known(past)
        or not all(map(math.isfinite, _known(values)))
    ):
        raise ConfigurationError(
            f"Round {number}: expected the finite efficacies of rounds 0 to {number} "
            f"and none of later ones, found {list(row)}. Use None where nothing was "
            "measured."
        )
    return tuple(inside)


def _known(values: Iterable[Value]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Iterable[Value]) -> Value:
    known = _known(values)
    return fmean(known) if known else None


def _difference(before: Value, after: Value) -> Value:
    return None if before is None or after is None else before - after
