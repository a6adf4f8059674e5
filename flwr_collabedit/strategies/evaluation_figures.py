"""What clients' evaluation sums say of single rounds, and of the model's health."""

from flwr_collabedit.evaluation.metrics import MetricSums
from flwr_collabedit.evaluation.perplexity import TEXT_LOSS, perplexity_of
from flwr_collabedit.messages.payloads import BASE, INACTIVE, round_prefix

_SHOWN = {"EA": "efficacy-accuracy", "ES": "efficacy-success"}
_KL = "kl-to-base"


def health_figures(sums: MetricSums) -> dict[str, float]:
    """Return perplexities of held-out text and the divergence from the base model."""
    base = MetricSums({TEXT_LOSS: sums.totals.get(f"{BASE}{TEXT_LOSS}", (0.0, 0))})
    found = {
        "perplexity": perplexity_of(sums),
        "base-perplexity": perplexity_of(base),
        _KL: sums.mean(_KL),
    }
    return {name: value for name, value in found.items() if value is not None}


def efficacy_by_round(sums: MetricSums) -> dict[str, dict[str, float]]:
    """Return the efficacy of every round's edits, in percent, and their number."""
    heads = {name.split("/")[0] for name in sums.totals if name.startswith("round-")}
    rounds = sorted(int(head.removeprefix("round-")) for head in heads)
    prefixes = {str(number): round_prefix(number) for number in rounds}
    found = {}
    for name, prefix in {**prefixes, INACTIVE.rstrip("/"): INACTIVE}.items():
        means = {k: sums.mean(f"{prefix}{metric}") for k, metric in _SHOWN.items()}
        row = {k: 100 * mean for k, mean in means.items() if mean is not None}
        if row:
            _, count = sums.totals[f"{prefix}{_SHOWN['EA']}"]
            found[name] = {**row, "edits": count}
    return found


def own_efficacy(sums: MetricSums, server_round: int) -> float | None:
    """Return EA, in percent, of one client's edits of a round; ``None`` without any."""
    mean = sums.mean(f"{round_prefix(server_round)}{_SHOWN['EA']}")
    return None if mean is None else 100 * mean
