"""Contradicting edits of groups of runs, before and after their resolution."""

from collections.abc import Mapping
from typing import Any

from flwr_collabedit.evaluation.intervals import Estimate
from flwr_collabedit.evaluation.report import Column, Row
from simulations.comparison import Group

_SHOWN = {"success": "success", "probability_difference": "dP"}
CONFLICT_COLUMNS = (
    Column("pairs", "pairs", "text"),
    *(
        Column(f"{when} {name}", f"{header} {words}", "text")
        for name, header in _SHOWN.items()
        for when, words in (("before", "unresolved"), ("after", "resolved"))
    ),
)


def conflict_figures(group: Group) -> Row | None:
    """Return a group's row, ``None`` where no run had a contradicting pair."""
    found = [run.summary.get("conflicts") or {} for run in group.runs]
    known = [conflicts for conflicts in found if conflicts.get("pairs")]
    if not known:
        return None
    pairs = Estimate.of([float(conflicts["pairs"]) for conflicts in known])
    row: dict[str, str | None] = {"pairs": str(pairs)}
    for when in ("before", "after"):
        for name in _SHOWN:
            row[f"{when} {name}"] = _shown([c.get(when) for c in known], name)
    return row


def _shown(parts: list[Mapping[str, Any] | None], name: str) -> str | None:
    values = [float(part[name]) for part in parts if part]
    return str(Estimate.of(values)) if values else None
