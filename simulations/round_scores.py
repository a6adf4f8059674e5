"""What each scored round of a run says of all edits so far and of the model.

Rounds are those of ``summary.json``, in order and without round 0.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from statistics import fmean

from simulations.round_figures import Round, health_change, kept

_ACCURACIES = ("EA", "PA", "NA")


def edits_so_far(rounds: Sequence[Round]) -> dict[int, int]:
    """Return the number of edits up to each kept round, that round's included."""
    left = kept(rounds)
    totals = accumulate(report.get("num_edits", 0) for report in left)
    return {r["server_round"]: n for r, n in zip(left, totals, strict=True)}


def scores_by_round(
    rounds: Sequence[Round], before: Mapping[str, float]
) -> dict[int, dict[str, float]]:
    """Return the figures of each kept round that was scored.

    Parameters
    ----------
    rounds : sequence of mapping
        All of a run.
    before : mapping of str to float
        The unedited model's norms, for rounds that do not have them themselves.

    Returns
    -------
    dict of int to dict of str to float
        By round, what is known of, in percent: ``EA``, ``PA``, ``NA`` of all edits so
        far, their ``mean``, and ``Score``; ``norm``, the increase of the mean absolute
        entry of the edited weights; ``delta``, the mean absolute entry of what the
        edits added to them, of that of the unedited ones; ``perplexity``, its increase.
        And ``kl`` in nats.
    """
    return {
        report["server_round"]: _figures(report, report.get("base_norms") or before)
        for report in kept(rounds)
        if "EA" in report["evaluation"]
    }


def _figures(report: Round, before: Mapping[str, float]) -> dict[str, float]:
    scores = report["evaluation"]
    found = {name: scores[name] for name in (*_ACCURACIES, "Score") if name in scores}
    if all(name in scores for name in _ACCURACIES):
        found["mean"] = fmean(scores[name] for name in _ACCURACIES)
    norms = report.get("weight_norms", {})
    weights = [name for name in before if name.startswith("l1/") and name in norms]
    base = sum(before[name] for name in weights)
    if base:
        found["norm"] = 100 * (sum(norms[name] for name in weights) / base - 1)
        deltas = [norm for name, norm in norms.items() if name.startswith("delta-l1/")]
        if deltas:
            found["delta"] = 100 * sum(deltas) / base
    return found | health_change(report)
