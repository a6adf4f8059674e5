"""The end of a run: ``summary.json``, ``report.md`` and the table in the terminal."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from flwr_collabedit.evaluation.metrics import summarize
from flwr_collabedit.evaluation.report import (
    GAP_COLUMNS,
    SCORE_COLUMNS,
    SCORE_LEGEND,
    Column,
    Row,
    gap_rows,
    render_markdown,
    render_rich,
)
from flwr_collabedit.strategies import RoundReport
from simulations.pooled import PooledResult
from simulations.run_folder import RunFolder
from simulations.settings import ExperimentSettings
from simulations.strategies import METHOD_NAMES

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
)


def summarize_run(
    settings: ExperimentSettings,
    reports: list[RoundReport],
    pooled: PooledResult | None,
    gaps: dict[str, float],
    seconds: float,
) -> dict[str, Any]:
    """Return what ``summary.json`` holds.

    ``upload_bytes_per_client`` is the mean over clients of the array bytes that one
    sent in all rounds; ``gap_to_pooled`` maps each parameter to
    ``||merged - pooled||_F / ||pooled||_F``.
    """
    last = reports[-1].evaluation
    scores = {METHOD_NAMES[settings.strategy]: last}
    for part, mean in reports[-1].personal.get("mean", {}).items():
        scores[f"mean: {part}"] = mean
    if settings.evaluate_before:
        scores = {"before": reports[0].evaluation, **scores}
    if pooled is not None:
        scores["pooled"] = _known(summarize(pooled.sums))
    rounds = [report for report in reports if report.server_round > 0]
    return {
        "score_before": scores.get("before", {}).get("Score"),
        "score_after": last.get("Score"),
        "score_pooled": scores.get("pooled", {}).get("Score"),
        "accuracy_score_after": last.get("accuracy_score"),
        "gap_to_pooled": gaps,
        "upload_bytes_per_client": sum(report.upload_bytes for report in rounds)
        / settings.num_clients,
        "seconds": seconds,
        "seconds_pooled": None if pooled is None else pooled.seconds,
        "scores": scores,
        "rounds": [report.to_dict() for report in rounds],
        "settings": settings.to_run_config(),
    }


def write_report(folder: RunFolder, summary: dict[str, Any]) -> None:
    """Write ``report.md``, then ``summary.json``, which marks the run as complete."""
    settings = summary["settings"]
    head = (
        f"# {METHOD_NAMES[settings['strategy']]} on `{settings['model']}`\n\n"
        f"{settings['num-clients']} clients, {settings['num-rounds']} rounds, "
        f"layer schedule `{settings['layer-schedule']}`, form `{settings['form']}`, "
        f"{settings['dtype']} model, {settings['wire-dtype']} wire, "
        f"seed {settings['seed']}. The whole run took {summary['seconds']:.0f} s.\n"
    )
    sections = [
        render_markdown(title, columns, rows)
        for title, columns, rows in _tables(summary)
    ]
    folder.write_text("report.md", "\n".join([head, *sections, SCORE_LEGEND, ""]))
    folder.write_json("summary.json", summary)


def print_report(path: Path, console: Console) -> None:
    """Print the tables of a finished run."""
    summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    for title, columns, rows in _tables(summary):
        console.print(render_rich(title, columns, rows), "")
    console.print(SCORE_LEGEND, style="dim")
    console.print(f"Report: {path / 'report.md'}")


def _tables(
    summary: dict[str, Any],
) -> list[tuple[str, tuple[Column, ...], list[Row]]]:
    scores: list[Row] = [
        {"method": name, **row} for name, row in summary["scores"].items()
    ]
    tables: list[tuple[str, tuple[Column, ...], list[Row]]] = [
        ("Scores over all edits", SCORE_COLUMNS, scores),
        ("Rounds", ROUND_COLUMNS, [_round_row(r) for r in summary["rounds"]]),
    ]
    slots = [report for report in summary["rounds"] if report["mediator"]]
    if slots:
        total = {n: sum(r["mediator"].get(n, 0) for r in slots) for n in _MEDIATOR}
        rows = [_mediator_row(str(r["server_round"]), r["mediator"]) for r in slots]
        rows.append(_mediator_row("all", total))
        tables.append(("Mediator vectors and gradient steps", MEDIATOR_COLUMNS, rows))
    if summary["gap_to_pooled"]:
        gaps = gap_rows(summary["gap_to_pooled"])
        tables.append(("Federated against pooled delta", GAP_COLUMNS, gaps))
    return tables


def _round_row(report: dict[str, Any]) -> Row:
    before, after = report["residual_norm_before"], report["residual_norm_after"]
    upload = report["upload_bytes"] / max(report["num_clients"], 1)
    return {
        "round": str(report["server_round"]),
        "edits": str(report["num_edits"]),
        "Score": report["evaluation"].get("Score"),
        "residual": " → ".join(f"{r:.1f}" for r in (before, after) if r is not None),
        "upload": f"{upload / 1024:.0f} KiB",
        "seconds": f"{sum(report['seconds'].values()):.1f}",
    }


def _mediator_row(slot: str, counts: dict[str, float]) -> Row:
    shown = {name: f"{counts.get(name, 0):.0f}" for name in _MEDIATOR}
    alpha = f"{counts['alpha']:.3f}" if "alpha" in counts else ""
    return {"slot": slot, "alpha": alpha, **shown}


def _known(values: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}
