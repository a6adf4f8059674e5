"""Edits in the order they were made, in groups: D4S's two protocols of forgetting.

Huang, Liu et al., "Reasons and Solutions for the Decline in Model Performance after
    Editing" (D4S), NeurIPS 2024, section 4.1.
"""

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

from flwr_collabedit.errors import ConfigurationError


def checkpoints(num_edits: int, every: int) -> list[int]:
    """Return after how many edits all so far are evaluated: every so many and the end.

    D4S has ``every = 100``.

    Raises
    ------
    ConfigurationError
        If a number is below 1.

    Examples
    --------
    >>> checkpoints(250, 100)
    [100, 200, 250]
    """
    if num_edits < 1 or every < 1:
        raise ConfigurationError(
            "Expected at least one edit and an interval of at least one, found "
            f"{num_edits} edits, an evaluation every {every}."
        )
    return [*range(every, num_edits, every), num_edits]


def group_means(values: Sequence[float], ends: Sequence[int]) -> list[float | None]:
    """Return the mean of each group of consecutive values; ``None`` of an empty one.

    With the scores of the last model in the order of editing, and
    ``checkpoints(len(values), 100)``, this is D4S's "degree of forgetting".

    Parameters
    ----------
    values : sequence of float
        In the order of editing.
    ends : sequence of int
        Where each group ends, ascending; the last is the number of values.

    Raises
    ------
    ConfigurationError
        If the ends descend or the last is not the number of values.

    Examples
    --------
    >>> group_means([1, 0, 1, 1, 0], [2, 4, 5])
    [0.5, 1.0, 0.0]
    """
    bounds = (0, *ends)
    if bounds[-1] != len(values) or any(a > b for a, b in pairwise(bounds)):
        raise ConfigurationError(
            f"Expected groups that end at ascending numbers up to {len(values)}, found "
            f"{list(ends)}."
        )
    return [
        fmean(values[start:end]) if end > start else None
        for start, end in pairwise(bounds)
    ]
