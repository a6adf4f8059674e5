"""What earlier rounds mean for a round's solve: nothing, a larger prior, or all of it.

``none`` keeps the prior as it is (CollabEdit's "immutable C"). ``dynamic-covariance``
adds what earlier rounds have edited to the prior, so that the round leaves it alone:
``C_t = beta_0 C + beta_1 sum_{s<t} K_s K_s^T`` (Zheng et al., "CollabEdit", ICLR 2025,
eq. 7, which prints no values; its code has ``beta_1 = lambda``, the weight of the
second moment). With ``beta_0 = beta_1 = 1``, the default here, an earlier edit counts
as much as a new one: that is the MEMIT-seq that AlphaEdit is compared with, and with
AlphaEdit's prior its own ``cache_c`` (Fang et al., "AlphaEdit", ICLR 2025).

``d4s`` sums residuals too and solves for all rounds at once, always from the base
weights (Huang et al., "Reasons and Solutions for the Decline in Model Performance after
Editing", NeurIPS 2024): any order of rounds, and one batch of all, give the same
weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self, get_args

from torch import Tensor

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.priors import Prior
from flwr_collabedit.algebra.running_sum import StatisticsSum
from flwr_collabedit.algebra.schedule import LayerSchedule
from flwr_collabedit.errors import ConfigurationError, nearest

History = Literal["none", "dynamic-covariance", "d4s"]


@dataclass(frozen=True)
class EditHistory:
    """Running sums of the rounds so far, and what a solve makes of them.

    Attributes
    ----------
    option : {"none", "dynamic-covariance", "d4s"}
        See above.
    beta_0, beta_1 : float
        Factors of the prior and of earlier rounds' keys, both positive; read by
        ``dynamic-covariance`` only.
    sums : mapping of str to StatisticsSum
        Of the rounds before, by parameter; empty with ``none``. Their size does not
        depend on the number of edits.
    """

    option: History = "none"
    beta_0: float = 1.0
    beta_1: float = 1.0
    sums: Mapping[str, StatisticsSum] = field(default_factory=dict)

    @property
    def is_from_base(self) -> bool:
        """Whether targets, keys and residuals are measured on the base model."""
        return self.option == "d4s"

    @property
    def betas(self) -> tuple[float, float]:
        """``beta_0`` and ``beta_1``."""
        return self.beta_0, self.beta_1

    def solve(
        self,
        name: str,
        total: StatisticsSum,
        prior: Prior,
        share: float,
        delta: Tensor,
        written: Tensor | None,
    ) -> Tensor:
        """Return a layer's cumulative delta after the round, ``(d_value, d_key)``.

        Parameters
        ----------
        name : str
            The layer's parameter.
        total : StatisticsSum
            The round's edits, with undivided residuals.
        prior : Prior
            The layer's.
        share : float
            Of the residual, that this layer writes.
        delta : Tensor
            The cumulative delta so far.
        written : Tensor or None
            What of it this round has written already, in an earlier sweep.
        """
        if self.option == "d4s":
            total = self._with(name, total)
            return prior.update(_scaled(total.total, share))
        if self.option == "dynamic-covariance":
            prior = prior.scaled(self.beta_0)
            if name in self.sums:
                prior = prior.plus(self.beta_1 * self.sums[name].gram.total)
        return delta + prior.update(_scaled(total.total, share), delta=written)

    def plus(self, totals: Mapping[str, StatisticsSum]) -> Self:
        """Return the history with a round's edits, by parameter."""
        if self.option == "none":
            return self
        sums = {name: self._with(name, total) for name, total in totals.items()}
        return replace(self, sums={**self.sums, **sums})

    def minus(self, totals: Mapping[str, EditStatistics]) -> Self:
        """Return the history without some of its edits.

        Only where everything was measured on the base model does that give what
        would have been without them: with ``d4s``.
        """
        sums = {name: self.sums[name].minus(t) for name, t in totals.items()}
        return replace(self, sums={**self.sums, **sums})

    def _with(self, name: str, total: StatisticsSum) -> StatisticsSum:
        return self.sums[name] + total if name in self.sums else total


def check_history(
    history: str, schedule: LayerSchedule, sweeps: int, beta_0: float, beta_1: float
) -> History:
    """Return the history option, once it is known to go with the others.

    Raises
    ------
    ConfigurationError
        For an unknown name; betas that are not positive; ``d4s`` with a schedule or
        number of sweeps that measures anything but the base model;
        ``dynamic-covariance`` with ``local``, where clients that do not know the
        earlier rounds' keys would have to solve with them.
    """
    options = get_args(History)
    if history not in options:
        raise ConfigurationError(
            f"Unknown history {history!r}. {nearest(history, options)}"
        )
    if beta_0 <= 0 or beta_1 <= 0:
        raise ConfigurationError(
            f"Expected beta_0 and beta_1 above 0, found {beta_0} and {beta_1}."
        )
    if history == "d4s" and (schedule != "frozen" or sweeps != 1):
        raise ConfigurationError(
            "History 'd4s' measures every layer once, on the base model; found the "
            f"{schedule!r} schedule and {sweeps} sweeps. Use the 'frozen' schedule and "
            "one sweep."
        )
    if history == "dynamic-covariance" and schedule == "local":
        raise ConfigurationError(
            "History 'dynamic-covariance' needs the earlier rounds' keys in every "
            "solve, which clients of the 'local' schedule do not have. Use "
            "'synchronous' or 'frozen'."
        )
    return history  # type: ignore[return-value]  # checked above


def _scaled(total: EditStatistics, share: float) -> EditStatistics:
    return replace(total, cross=share * total.cross)
