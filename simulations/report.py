"""The end of a run: ``summary.json``, ``report.md`` and the tables in the terminal."""

from logging import INFO
from pathlib import Path
from typing import Any

from flwr.common import log
from rich.console import RenderableType
from rich.text import Text

from flwr_collabedit.evaluation.metrics import summarize
from flwr_collabedit.evaluation.report import Row, render_markdown, render_rich
from flwr_collabedit.files import replacing
from flwr_collabedit.strategies import RoundReport
from simulations.notices import notices, notices_in_short
from simulations.pooled import PooledResult
from simulations.round_figures import EfficacyByScoring
from simulations.run_folder import RunFolder
from simulations.run_tables import legend, run_tables
from simulations.settings import ExperimentSettings
from simulations.strategies import METHOD_NAMES

HEAT_MAP = "forgetting.png"

# Of a longer table the terminal shows the first and the last rows.
_MOST_ROWS, _FIRST_ROWS, _LAST_ROWS = 12, 4, 6


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
    ``||merged - pooled||_F / ||pooled||_F``. The final scores are those of the last
    round that was not undone.
    """
    kept = [report for report in reports if not report.refused]
    final = kept[-1] if kept else RoundReport(0)
    last = final.evaluation
    scores = {METHOD_NAMES[settings.strategy]: last}
    for part, mean in final.personal.get("mean", {}).items():
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
    """Write ``report.md``, then ``summary.json``, which marks the run as complete.

    Where two rounds were evaluated, ``forgetting.png`` is drawn beside them, if
    matplotlib is installed.
    """
    settings = summary["settings"]
    head = (
        f"# {METHOD_NAMES[settings['strategy']]} on `{settings['model']}`\n\n"
        f"{settings['num-clients']} clients, {settings['num-rounds']} rounds, "
        f"layer schedule `{settings['layer-schedule']}`, form `{settings['form']}`, "
        f"{settings['dtype']} model, {settings['wire-dtype']} wire, "
        f"seed {settings['seed']}. The whole run took {summary['seconds']:.0f} s.\n"
    )
    sections = [render_markdown(*table) for table in run_tables(summary)]
    found = notices(summary["rounds"])
    if found:
        lines = "\n".join(f"- {text}" for text in found)
        sections.append(f"## Warnings and undone rounds\n\n{lines}\n")
    if _draw_forgetting(folder.path / HEAT_MAP, summary):
        sections.append(f"![EA of each round's edits after each round]({HEAT_MAP})\n")
    folder.write_text("report.md", "\n".join([head, *sections, legend(summary), ""]))
    folder.write_json("summary.json", summary)


def report_parts(path: Path, summary: dict[str, Any]) -> list[RenderableType]:
    """Return the tables of a finished run, and what went wrong in its rounds."""
    parts: list[RenderableType] = []
    for title, columns, rows in run_tables(summary):
        shown = _ends(rows, columns[0].key)
        parts += [render_rich(title, columns, shown), ""]
    parts.append(Text(legend(summary), style="dim"))
    parts += [Text(one, style="yellow") for one in notices_in_short(summary["rounds"])]
    return [*parts, Text(f"Report: {path / 'report.md'}")]


def _draw_forgetting(path: Path, summary: dict[str, Any]) -> bool:
    """Draw the matrix of efficacies, if there is one; return whether it was drawn."""
    path.unlink(missing_ok=True)
    scored = EfficacyByScoring.of(summary["rounds"])
    if scored is None:
        return False
    try:
        from flwr_collabedit.evaluation.heat_map import draw_heat_map
    except ImportError as error:
        log(INFO, "%s is not drawn. %s", path.name, error)
        return False
    ends = [rounds[-1] for rounds in scored.rounds]
    picture = draw_heat_map(scored.matrix, title="EA of each round's edits", ends=ends)
    with replacing(path) as draft:
        draft.write_bytes(picture)
    return True


def _ends(rows: list[Row], first_column: str) -> list[Row]:
    """Return the rows, without the middle ones where they are many."""
    if len(rows) <= _MOST_ROWS:
        return rows
    gap: Row = {first_column: f"({len(rows) - _FIRST_ROWS - _LAST_ROWS} more)"}
    return [*rows[:_FIRST_ROWS], gap, *rows[-_LAST_ROWS:]]


def _known(values: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}
