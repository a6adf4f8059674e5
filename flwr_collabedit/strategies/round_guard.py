"""Bounds on what a round may do to the rest of the model."""

from dataclasses import dataclass

from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.strategies.round_report import RoundReport


@dataclass(frozen=True)
class RoundGuard:
    """When an evaluated round is warned of, and when it is undone.

    All increases are shares of the unedited model's value, so that small steps add up.

    Attributes
    ----------
    max_perplexity_increase : float or None
        A round after which the perplexity of held-out text exceeds the unedited
        model's by more than this share is undone: its edits count as if they had never
        been sent. ``None`` undoes nothing. Clients must bring texts, see
        `flwr_collabedit.client.health.HealthTexts`.
    warn_perplexity_increase, warn_norm_increase : float
        From which increase of perplexity, or of an edited weight's L1 norm, a round is
        warned of.

    warn_efficacy : float
        Below which efficacy (EA, a share) of its edits of the round a client is named:
        CollabEdit's signal of a conflict or of an edit that failed.

    Raises
    ------
    ConfigurationError
        If a bound is not positive.
    """

    max_perplexity_increase: float | None = None
    warn_perplexity_increase: float = 0.1
    warn_norm_increase: float = 0.1
    warn_efficacy: float = 0.5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value <= 0:
                raise ConfigurationError(f"Expected {name} above 0, found {value}.")

    def warnings(self, report: RoundReport) -> list[str]:
        """Return what passes a bound, in words."""
        found = []
        increase = perplexity_increase(report)
        if increase is not None and increase > self.warn_perplexity_increase:
            found.append(
                f"Round {report.server_round}: perplexity of held-out text is "
                f"{100 * increase:.1f} % above the unedited model's "
                f"({report.health['perplexity']:.3f} against "
                f"{report.health['base-perplexity']:.3f})."
            )
        for name, norm in report.weight_norms.items():
            before = report.base_norms.get(name)
            if not name.startswith("l1/") or not before:
                continue
            grown = norm / before - 1
            if grown > self.warn_norm_increase:
                found.append(
                    f"Round {report.server_round}: the L1 norm of "
                    f"{name.removeprefix('l1/')} is {100 * grown:.1f} % above the "
                    "unedited model's."
                )
        found += [
            f"Round {report.server_round}: client {name!r} reports an efficacy of "
            f"{share:.1f} % for its edits of the round; another's may contradict them."
            for name, share in sorted(report.efficacy_by_client.items())
            if share < 100 * self.warn_efficacy
        ]
        return found

    def refusal(self, report: RoundReport) -> str:
        """Return why the round is to be undone, empty if it is not.

        Raises
        ------
        ConfigurationError
            If there is a bound and no client measured a perplexity.
        """
        bound = self.max_perplexity_increase
        if bound is None:
            return ""
        increase = perplexity_increase(report)
        if increase is None:
            raise ConfigurationError(
                "max_perplexity_increase is set, but no client has measured a "
                "perplexity. Give EditingClient health texts, or leave the bound out."
            )
        if increase <= bound:
            return ""
        return (
            f"perplexity of held-out text {100 * increase:.1f} % above the unedited "
            f"model's, more than {100 * bound:.1f} %"
        )


def perplexity_increase(report: RoundReport) -> float | None:
    """Return the perplexity's increase as a share of the unedited model's."""
    now = report.health.get("perplexity")
    before = report.health.get("base-perplexity")
    return None if now is None or before is None else now / before - 1
