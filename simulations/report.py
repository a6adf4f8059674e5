"""The end of a run: ``summary.json``, ``report.md`` and the table in the terminal."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from flwr_collabedit.evaluation.metrics import summarize
from flwr_collabedit.evaluation.report import render_markdown, render_rich
from flwr_collabedit.strategies import RoundReport
from simulations.pooled import PooledResult
from simulations.run_folder import RunFolder
from simulations.run_tables import legend, run_tables
from simulations.settings import ExperimentSettings
from simulations.strategies import METHOD_NAMES


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
    sections = [render_markdown(*table) for table in run_tables(summary)]
    folder.write_text("report.md", "\n".join([head, *sections, legend(summary), ""]))
    folder.write_json("summary.json", summary)


def print_report(path: Path, console: Console) -> None:
    """Print the tables of a finished run."""
    summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    for table in run_tables(summary):
        console.print(render_rich(*table), "")
    console.print(legend(summary), style="dim")
    console.print(f"Report: {path / 'report.md'}")


def _known(values: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}
