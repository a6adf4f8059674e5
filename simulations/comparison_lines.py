"""Lines of a figure over a run's rounds: what they are placed at, and over seeds."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flwr_collabedit.evaluation.intervals import Estimate
from flwr_collabedit.evaluation.plots import Series
from simulations.comparison import SEED, Group
from simulations.finished_runs import FinishedRun
from simulations.round_scores import edits_so_far

INTERVALS = "Error bars: 95 % interval over seeds"
Points = Callable[[FinishedRun], Mapping[Any, float]]
"""Gives a run's values by round, or by where they are drawn."""


def per_run_lines(groups: Sequence[Group], points: Points) -> list[Series]:
    """Return a line for every method that has points, each over its seeds."""
    found = [Series(group.method, _over_seeds(group.runs, points)) for group in groups]
    return [series for series in found if series.points]


def _over_seeds(runs: Sequence[FinishedRun], points: Points) -> dict[Any, Estimate]:
    found: dict[Any, dict[int, float]] = {}
    for run in runs:
        for x, value in points(run).items():
            found.setdefault(x, {})[run.settings[SEED]] = value
    return {x: Estimate.of(list(seeds.values())) for x, seeds in found.items()}


def have_several_rounds(runs: Sequence[FinishedRun]) -> bool:
    """Whether any run has more than one."""
    return max((len(run.summary["rounds"]) for run in runs), default=0) > 1


def _lengths(runs: Sequence[FinishedRun]) -> set[int]:
    return {len(run.summary["rounds"]) for run in runs}


def x_label(runs: Sequence[FinishedRun]) -> str:
    """Return what `placed` places points at."""
    if _have_edits(runs):
        return "edits"
    return "round" if len(_lengths(runs)) == 1 else "rounds done, %"


def _have_edits(runs: Sequence[FinishedRun]) -> bool:
    """Whether points can be placed by edits: the same ones in runs of one length."""
    by_length: dict[int, set[tuple[int, ...]]] = {}
    for run in runs:
        rounds = run.summary["rounds"]
        edits = tuple(edits_so_far(rounds).values())
        if len({0, *edits}) <= len(edits):  # a round without edits
            return False
        by_length.setdefault(len(rounds), set()).add(edits)
    return all(len(found) == 1 for found in by_length.values())


def placed(runs: Sequence[FinishedRun], by_round: Points) -> Points:
    """Return the points by edits, or else by round.

    Those by round are in percent of a run where runs differ in length.
    """
    if _have_edits(runs):

        def at_edits(run: FinishedRun) -> dict[float, float]:
            edits = {0: 0, **edits_so_far(run.summary["rounds"])}
            return {edits[number]: value for number, value in by_round(run).items()}

        return at_edits
    if len(_lengths(runs)) == 1:
        return by_round

    def shared(run: FinishedRun) -> dict[float, float]:
        share = 100 / len(run.summary["rounds"])
        return {share * number: value for number, value in by_round(run).items()}

    return shared
