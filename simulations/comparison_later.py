"""A comparison's table of what later rounds did to earlier edits and to the model."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from flwr_collabedit.evaluation.intervals import Estimate
from flwr_collabedit.evaluation.report import Column, Row
from simulations.comparison import SEED, Group
from simulations.comparison_words import shown_estimate
from simulations.finished_runs import FinishedRun
from simulations.round_figures import end_figures

# Figure to header and number format.
_FIGURES = {
    "first": ("EA of the first edits", ".1f"),
    "all": ("EA of all edits", ".1f"),
    "forgetting": ("mean forgetting", ".1f"),
    "norm": ("L1 norm, %", "+.1f"),
    "perplexity": ("perplexity, %", "+.2f"),
    "kl": ("KL, nats", ".1e"),
    "undone": ("rounds undone", ".1f"),
}


def later_columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns in which any of the rows has something to show."""
    return [
        Column(name, header, "text")
        for name, (header, _) in _FIGURES.items()
        if any(row.get(name) is not None for row in rows)
    ]


def later_figures(group: Group) -> Row | None:
    """Return a method's cells, ``None`` where no run has several rounds.

    Runs that repeat a seed count as one value. What older runs have not measured is
    left out.
    """
    runs = [run for run in group.runs if len(run.summary["rounds"]) > 1]
    if not runs:
        return None
    ends = [end_figures(run.summary["rounds"], norms_before(run)) for run in runs]
    estimates = over_seeds(runs, ends)
    if not estimates["undone"].mean:
        del estimates["undone"]
    return {
        name: shown_estimate(estimate, _FIGURES[name][1])
        for name, estimate in estimates.items()
    }


def norms_before(run: FinishedRun) -> Mapping[str, float]:
    """Return the unedited model's norms where a run's first line has them.

    The rounds of older runs do not have them themselves.
    """
    line = run.rounds[0]
    found: Mapping[str, float] = line.get("weight_norms", {})
    return found if line["server_round"] == 0 else {}


def over_seeds(
    runs: Sequence[FinishedRun], figures: Sequence[Mapping[str, float]]
) -> dict[str, Estimate]:
    """Return each figure of some runs over their seeds; repeated seeds count once."""
    found: dict[str, dict[int, list[float]]] = {}
    for run, known in zip(runs, figures, strict=True):
        for name, value in known.items():
            found.setdefault(name, {}).setdefault(run.settings[SEED], []).append(value)
    return {
        name: Estimate.of([fmean(values) for values in seeds.values()])
        for name, seeds in found.items()
    }
