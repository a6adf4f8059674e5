"""Ways to merge clients' solved deltas: what CollabEdit is compared with.

Each acts on the deltas ``(d_value, d_key)`` of one weight, in float64. Unlike sums of
edit statistics, none of them gives what one party with all the edits would write.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from flwr_collabedit.algebra.matrices import as_float64
from flwr_collabedit.algebra.running_sum import RunningSum
from flwr_collabedit.errors import ConfigurationError, MatrixError

# Yadav et al., 2023, https://arxiv.org/abs/2306.01708: what they use where no
# validation set can choose. CollabEdit's published code scales by 0.4 instead.
TIES_DENSITY, TIES_SCALE = 0.2, 1.0
# CollabEdit's published code: the plain sum. Its paper gives no scale.
TASK_ARITHMETIC_SCALE = 1.0


class WeightedSum:
    """A running ``sum_i w_i Delta_i``: clients' deltas can be dropped once added.

    Their order does not show, see `flwr_collabedit.algebra.running_sum`.

    Parameters
    ----------
    d_value, d_key : int
        Shape of the deltas.
    """

    def __init__(self, d_value: int, d_key: int) -> None:
        self._sum = RunningSum.of(torch.zeros(d_value, d_key, dtype=torch.float64))
        self.weight = 0.0

    @property
    def total(self) -> Tensor:
        """The sum, ``(d_value, d_key)``, float64."""
        return self._sum.total

    def add(self, delta: Tensor, weight: float = 1.0) -> None:
        """Add ``weight`` times a delta.

        Raises
        ------
        MatrixError
            If the delta has another shape or is not finite.
        """
        d_value, d_key = self.total.shape
        delta = as_float64("delta", delta, shape=(d_value, d_key))
        self._sum = self._sum.plus(weight * delta.to(self.total.device))
        self.weight += weight

    def mean(self) -> Tensor:
        """Return ``sum w_i Delta_i / sum w_i``, zeros where all weights are zero."""
        return self.total / self.weight if self.weight else self.total.clone()


def edit_average(deltas: Sequence[Tensor], num_edits: Sequence[int]) -> Tensor:
    """Return ``sum_c p_c Delta_c``, ``p_c`` the client's share of the round's edits.

    "FedLEKE", appendix B (EditAvg). Without any edits the result is zero.
    """
    return _weighted_sum(deltas, num_edits).mean()


def simple_average(deltas: Sequence[Tensor]) -> Tensor:
    """Return the sum of the deltas divided by their number (Simple-Average)."""
    return _weighted_sum(deltas, [1] * len(deltas)).mean()


def task_arithmetic(
    deltas: Sequence[Tensor], scale: float = TASK_ARITHMETIC_SCALE
) -> Tensor:
    """Return ``scale`` times the sum of the deltas.

    Ilharco et al., 2023, "Editing Models with Task Arithmetic", ICLR.
    """
    return scale * _weighted_sum(deltas, [1] * len(deltas)).total


def ties(
    deltas: Sequence[Tensor], density: float = TIES_DENSITY, scale: float = TIES_SCALE
) -> Tensor:
    """Return the deltas trimmed, their signs elected, and the agreeing entries' mean.

    Yadav et al., 2023, "TIES-Merging: Resolving Interference When Merging Models",
    NeurIPS, Algorithm 1, on one matrix at a time as CollabEdit's published code does.

    Parameters
    ----------
    deltas : sequence of Tensor
        At least one, all ``(d_value, d_key)``.
    density : float
        Share of each delta's entries that is kept, those of largest magnitude, in
        (0, 1].
    scale : float
        Factor of the result.

    Raises
    ------
    ConfigurationError
        If ``density`` is out of range.
    MatrixError
        If there is no delta, or they differ in shape.
    """
    check_density(density)
    _check_number(deltas)
    d_value, d_key = deltas[0].shape
    total, kept = WeightedSum(d_value, d_key), []
    for delta in deltas:
        kept.append(_trim(as_float64("delta", delta), density))
        total.add(kept[-1])
    elected = 2.0 * (total.total >= 0).double() - 1.0
    agreeing, count = WeightedSum(d_value, d_key), torch.zeros_like(elected)
    for delta in kept:
        agrees = delta.sign() == elected  # never where an entry is zero
        agreeing.add(torch.where(agrees, delta, 0.0))
        count += agrees
    return scale * agreeing.total / count.clamp(min=1)


def check_density(density: float) -> None:
    """Raise a `ConfigurationError` unless ``density`` is a share that keeps entries."""
    if not 0 < density <= 1:
        raise ConfigurationError(
            f"Expected a TIES density above 0 and at most 1, found {density}. "
            f"The authors keep {TIES_DENSITY}."
        )


def _trim(delta: Tensor, density: float) -> Tensor:
    """Return the delta with all but its largest entries set to zero."""
    flat = delta.flatten()
    largest = flat.abs().topk(int(density * flat.numel())).indices
    return torch.zeros_like(flat).index_copy(0, largest, flat[largest]).view_as(delta)


def _weighted_sum(deltas: Sequence[Tensor], weights: Sequence[float]) -> WeightedSum:
    _check_number(deltas)
    total = WeightedSum(*deltas[0].shape)
    for delta, weight in zip(deltas, weights, strict=True):
        total.add(delta, weight)
    return total


def _check_number(deltas: Sequence[Tensor]) -> None:
    if not deltas:
        raise MatrixError(
            "expected the delta of at least one client, found none; a round needs an "
            "accepted reply"
        )
