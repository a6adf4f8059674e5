"""A comparison's table of what later rounds did to earlier edits and to the model."""

from collections.abc import Sequence
from statistics import fmean

from flwr_collabedit.evaluation.intervals import Estimate
from flwr_collabedit.evaluation.report import Column, Row
from simulations.comparison import SEED, Group
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
    found: dict[str, dict[int, list[float]]] = {}
    for run in runs:
        for name, value in _end(run).items():
            found.setdefault(name, {}).setdefault(run.settings[SEED], []).append(value)
    estimates = {
        name: Estimate.of([fmean(values) for values in seeds.values()])
        for name, seeds in found.items()
    }
    if not estimates["undone"].mean:
        del estimates["undone"]
    return {name: _shown(name, estimate) for name, estimate in estimates.items()}


def _end(run: FinishedRun) -> dict[str, float]:
    line = run.rounds[0]
    # The rounds of older runs do not have the unedited model's norms, but line 0 does.
    before = line["weight_norms"] if line["server_round"] == 0 else {}
    return end_figures(run.summary["rounds"], before)


def _shown(name: str, estimate: Estimate) -> str:
    form = _FIGURES[name][1]
    text = f"{estimate.mean:{form}}"
    if estimate.half_width is None:
        return text
    return f"{text} ± {estimate.half_width:{form.removeprefix('+')}}"
