"""Finished runs, read from run folders and sweep folders, for comparison."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr_collabedit.errors import ConfigurationError, shorten
from simulations.cell_process import SUMMARY
from simulations.round_figures import kept

METHOD_FILE = "method.json"
"""Holds the name that a sweep file gives to a cell's method."""


@dataclass(frozen=True)
class FinishedRun:
    """One simulation's results.

    Attributes
    ----------
    folder : Path
        Where they lie.
    method : str
        The sweep file's name for it, or else the strategy.
    settings, summary : Mapping
        As ``summary.json`` has them.
    rounds : sequence of Mapping
        The lines of ``rounds.jsonl``, which begin with round 0.
    """

    folder: Path
    method: str
    settings: Mapping[str, Any]
    summary: Mapping[str, Any]
    rounds: Sequence[Mapping[str, Any]]

    @property
    def scores(self) -> Mapping[str, float]:
        """The scores over all edits after the last round that was not undone."""
        return final_scores(self.summary)


def final_scores(summary: Mapping[str, Any]) -> Mapping[str, float]:
    """Return the scores after the last round that was not undone, if there is one."""
    rounds = kept(summary["rounds"])
    last: Mapping[str, float] = rounds[-1]["evaluation"] if rounds else {}
    return last


def read_runs(paths: Sequence[Path]) -> list[FinishedRun]:
    """Return the finished runs in and below the given folders, each once.

    Raises
    ------
    ConfigurationError
        If a folder holds none, or the runs are of different models.
    """
    folders: dict[Path, None] = {}
    for path in paths:
        found = sorted(file.parent.resolve() for file in path.rglob(SUMMARY))
        if not found:
            raise ConfigurationError(
                f"Expected a finished run or a sweep in '{path}', found no {SUMMARY}. "
                "Run `collabedit simulate` or `collabedit sweep` first."
            )
        folders |= dict.fromkeys(found)
    runs = [_read(folder) for folder in folders]
    models = dict.fromkeys(run.settings["model"] for run in runs)
    if len(models) > 1:
        raise ConfigurationError(
            f"Expected runs of one model in a report, found {shorten(models)}. Scores "
            "of different models do not compare; write a report for each."
        )
    return runs


def home_of(runs: Sequence[FinishedRun], paths: Sequence[Path]) -> Path:
    """Return the folder beside the runs: the sweep's own, or the one that holds all."""
    if len(paths) == 1 and not (paths[0] / SUMMARY).exists():
        return paths[0]
    parents = [run.folder.parent for run in runs]
    common = parents[0]
    while not all(parent.is_relative_to(common) for parent in parents):
        common = common.parent
    return common


def _read(folder: Path) -> FinishedRun:
    summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    settings, named = summary["settings"], folder / METHOD_FILE
    method = settings.get("strategy", "collabedit")
    if named.exists():
        method = json.loads(named.read_text(encoding="utf-8"))["method"] or method
    lines = folder / "rounds.jsonl"
    rounds = summary["rounds"]
    if lines.exists():
        text = lines.read_text(encoding="utf-8")
        rounds = [json.loads(line) for line in text.splitlines()]
    return FinishedRun(folder, method, settings, summary, rounds)
