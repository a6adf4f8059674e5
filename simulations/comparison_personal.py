"""A comparison's table of personal models: own facts, received ones, steps saved."""

from collections.abc import Sequence
from typing import Any

from flwr_collabedit.evaluation.intervals import Estimate
from flwr_collabedit.evaluation.report import Column, Row
from simulations.comparison import Group
from simulations.finished_runs import FinishedRun

_PARTS = ("own", "received", "all")
_SCORES = {"Score": "Score", "accuracy_score": "accuracy Score"}
_COUNTS = {
    "offered": "vectors offered",
    "reused": "reused",
    "conflicts": "in conflict",
    "gradient-steps": "gradient steps",
    "steps-saved": "saved",
}

PERSONAL_COLUMNS = (
    *(
        Column(f"{score} of {part}", f"{part}: {header}", "text")
        for part in _PARTS
        for score, header in _SCORES.items()
    ),
    *(Column(name, header, "text") for name, header in _COUNTS.items()),
)


def personal_figures(group: Group) -> Row | None:
    """Return a method's cells of ``PERSONAL_COLUMNS``, ``None`` without such models.

    Scores are FedLEKE's: each client's, weighted by records. ``received`` are facts of
    others, written from their vectors; ``all`` is both. Counts are of a whole run.
    """
    if not any(_mean_of(run, "all") for run in group.runs):
        return None
    row = {
        f"{score} of {part}": _over(
            [_mean_of(run, part).get(score) for run in group.runs]
        )
        for part in _PARTS
        for score in _SCORES
    }
    counts = {
        name: _over([_count(run, name) for run in group.runs], "{:,.0f}")
        for name in _COUNTS
    }
    return {**row, **counts}


def _mean_of(run: FinishedRun, part: str) -> dict[str, float]:
    found: dict[str, float] = run.summary["scores"].get(f"mean: {part}", {})
    return found


def _count(run: FinishedRun, name: str) -> float:
    slots: list[dict[str, Any]] = run.summary["rounds"]
    return float(sum(slot.get("mediator", {}).get(name, 0) for slot in slots))


def _over(values: Sequence[float | None], form: str = "") -> str | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    estimate = Estimate.of(known)
    return form.format(estimate.mean) if form else str(estimate)
