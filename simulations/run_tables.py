"""A finished run's tables: scores, rounds, mediator vectors, gaps."""

import math
from typing import Any

from flwr_collabedit.evaluation.report import (
    GAP_COLUMNS,
    SCORE_LEGEND,
    TEXT_COLUMNS,
    TEXT_LEGEND,
    Column,
    Row,
    gap_rows,
    has_texts,
    score_columns,
)
from flwr_collabedit.messages.personal_task import RE_EDIT_SQUARES
from simulations.conflict_tables import (
    CONFLICT_COLUMNS,
    CONFLICT_LEGEND,
    conflict_rows,
)
from simulations.round_tables import RoundTable, round_tables

RunTable = tuple[str, tuple[Column, ...], list[Row]]

ROUND_COLUMNS = (
    Column("round", "round", "text"),
    Column("edits", "edits", "text"),
    Column("Score", "Score"),
    Column("residual", "residual norm", "text"),
    Column("upload", "upload/client", "text"),
    Column("seconds", "seconds", "text"),
)

# Counts of a slot and their headers; rejected is what did not meet the condition.
_MEDIATOR = {
    "uploaded": "sent",
    "offered": "offered",
    "selected": "selected",
    "rejected": "rejected",
    "conflicts": "conflicts",
    "reused": "reused",
    "gradient-steps": "steps",
    "steps-saved": "saved",
}
MEDIATOR_COLUMNS = (
    Column("slot", "slot", "text"),
    Column("alpha", "alpha", "text"),
    *(Column(name, header, "text") for name, header in _MEDIATOR.items()),
    Column("left", "left", "text"),
)
MEDIATOR_LEGEND = (
    "saved: steps that reused vectors would have cost again. left: residual norm of "
    "the reused vectors after the re-edit, in percent of that before."
)


def run_tables(summary: dict[str, Any]) -> list[RunTable]:
    """Return title, columns and rows of each table of a ``summary.json``."""
    scores: list[Row] = [
        {"method": name, **row} for name, row in summary["scores"].items()
    ]
    tables: list[RunTable] = [
        ("Scores over all edits", score_columns(scores), scores),
        ("Rounds", ROUND_COLUMNS, [_round_row(r) for r in summary["rounds"]]),
    ]
    if not summary["gap_to_pooled"] and "pooled" in summary["scores"]:
        # Personal models have no delta to compare with the pooled one's.
        shares = _shares(summary["scores"])
        tables.insert(
            1, ("Percent of the pooled edit's", score_columns(shares), shares)
        )
    if has_texts(scores):
        tables.append(("Free text", TEXT_COLUMNS, scores))
    tables += [table[:3] for table in _round_tables(summary)]
    if rows := conflict_rows(summary.get("conflicts", {})):
        tables.append(("Contradicting edits", CONFLICT_COLUMNS, rows))
    slots = _slots(summary)
    if slots:
        names = (*_MEDIATOR, *RE_EDIT_SQUARES)
        total = {n: sum(r["mediator"].get(n, 0) for r in slots) for n in names}
        rows = [_mediator_row(str(r["server_round"]), r["mediator"]) for r in slots]
        rows.append(_mediator_row("all", total))
        tables.append(("Mediator vectors and gradient steps", MEDIATOR_COLUMNS, rows))
    if summary["gap_to_pooled"]:
        gaps = gap_rows(summary["gap_to_pooled"])
        tables.append(("Federated against pooled delta", GAP_COLUMNS, gaps))
    return tables


def _slots(summary: dict[str, Any]) -> list[dict[str, Any]]:
    return [report for report in summary["rounds"] if report["mediator"]]


def _round_tables(summary: dict[str, Any]) -> list[RoundTable]:
    presence = bool(summary.get("settings", {}).get("presence"))
    return round_tables(summary["rounds"], presence_is_measured=presence)


def legend(summary: dict[str, Any]) -> str:
    """Return what the tables' columns mean."""
    scores = summary["scores"].values()
    text = TEXT_LEGEND if has_texts(scores) else ""
    meanings = [SCORE_LEGEND, text, *(table[3] for table in _round_tables(summary))]
    if summary.get("conflicts"):
        meanings.append(CONFLICT_LEGEND)
    if _slots(summary):
        meanings.append(MEDIATOR_LEGEND)
    return " ".join(filter(None, meanings))


def _shares(scores: dict[str, dict[str, float]]) -> list[Row]:
    pooled = {name: value for name, value in scores["pooled"].items() if value}
    return [
        {
            "method": method,
            **{n: 100 * row[n] / value for n, value in pooled.items() if n in row},
        }
        for method, row in scores.items()
        if method not in ("before", "pooled")
    ]


def _round_row(report: dict[str, Any]) -> Row:
    before, after = report["residual_norm_before"], report["residual_norm_after"]
    upload = report["upload_bytes"] / max(report["num_clients"], 1)
    undone = " undone" if report.get("refused") else ""
    return {
        "round": f"{report['server_round']}{undone}",
        "edits": str(report["num_edits"]),
        "Score": report["evaluation"].get("Score"),
        "residual": " → ".join(f"{r:.1f}" for r in (before, after) if r is not None),
        "upload": f"{upload / 1024:.0f} KiB",
        "seconds": f"{sum(report['seconds'].values()):.1f}",
    }


def _mediator_row(slot: str, counts: dict[str, float]) -> Row:
    shown = {name: f"{counts.get(name, 0):.0f}" for name in _MEDIATOR}
    alpha = f"{counts['alpha']:.3f}" if "alpha" in counts else ""
    before, after = (counts.get(name, 0) for name in RE_EDIT_SQUARES)
    left = f"{100 * math.sqrt(after / before):.0f}" if before else ""
    return {"slot": slot, "alpha": alpha, **shown, "left": left}
