"""Figures of runs of several rounds: earlier edits and norms, round by round."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flwr_collabedit.evaluation.intervals import Estimate
from flwr_collabedit.evaluation.plots import Panel, Series, draw_lines
from simulations.comparison import SEED, Group
from simulations.finished_runs import FinishedRun
from simulations.round_figures import (
    first_efficacy,
    kept,
    layer_of,
    overall_efficacy,
)

Drawing = tuple[str, bytes]
"""Caption and PNG."""

INTERVALS = "Error bars: 95 % interval over seeds"
_MOST_LAYERS = 3
_Points = Callable[[FinishedRun], Mapping[Any, float]]


def draw_norms(groups: Sequence[Group]) -> Drawing | None:
    """Draw the growth of the first edited layers' L1 norms."""
    runs = [run for group in groups for run in group.runs]
    if not _have_several_rounds(runs):
        return None
    names = dict.fromkeys(k for run in runs for k in run.rounds[-1]["weight_norms"])
    weights = [name for name in names if name.startswith("l1/")]
    if not weights:
        return None
    panels = [
        Panel(
            f"layer {layer_of(weight)}",
            _x_label(runs),
            "L1 norm / unedited",
            per_run_lines(groups, _placed(runs, _growth(weight))),
        )
        for weight in weights[:_MOST_LAYERS]
    ]
    more = len(weights) - len(panels)
    rest = f" {more} further layers are not shown." if more else ""
    caption = (
        "L1 norm of each edited weight after a round, as a multiple of the unedited "
        "model's or, in older runs, of the first one recorded; round 0 is the unedited "
        f"model. {INTERVALS}.{rest}"
    )
    return caption, draw_lines(panels)


def draw_efficacy(groups: Sequence[Group]) -> Drawing | None:
    """Draw what is left of the first edits, and of all so far, over the rounds."""
    runs = [run for group in groups for run in group.runs]
    if not _have_several_rounds(runs):
        return None
    panels = [
        Panel(
            title,
            _x_label(runs),
            "EA, %",
            per_run_lines(groups, _placed(runs, points)),
            percent=True,
        )
        for title, points in (("The first edits", _first), ("All so far", _overall))
    ]
    if not panels[0].series:
        return None
    caption = (
        "EA of the edits up to the first scoring, and of all edits so far, after each "
        f"round that was scored and not undone. {INTERVALS}."
    )
    return caption, draw_lines(panels)


def per_run_lines(groups: Sequence[Group], points: _Points) -> list[Series]:
    """Return a line for every method that has points, each over its seeds."""
    found = [Series(group.method, _over_seeds(group.runs, points)) for group in groups]
    return [series for series in found if series.points]


def _over_seeds(runs: Sequence[FinishedRun], points: _Points) -> dict[Any, Estimate]:
    found: dict[Any, dict[int, float]] = {}
    for run in runs:
        for x, value in points(run).items():
            found.setdefault(x, {})[run.settings[SEED]] = value
    return {x: Estimate.of(list(seeds.values())) for x, seeds in found.items()}


def _have_several_rounds(runs: Sequence[FinishedRun]) -> bool:
    return max((len(run.summary["rounds"]) for run in runs), default=0) > 1


def _lengths(runs: Sequence[FinishedRun]) -> set[int]:
    return {len(run.summary["rounds"]) for run in runs}


def _x_label(runs: Sequence[FinishedRun]) -> str:
    return "round" if len(_lengths(runs)) == 1 else "rounds done, %"


def _placed(runs: Sequence[FinishedRun], by_round: _Points) -> _Points:
    """Return the points by round, in percent of a run where runs differ in length."""
    if len(_lengths(runs)) == 1:
        return by_round

    def placed(run: FinishedRun) -> dict[float, float]:
        share = 100 / len(run.summary["rounds"])
        return {share * number: value for number, value in by_round(run).items()}

    return placed


def _first(run: FinishedRun) -> Mapping[int, float]:
    return first_efficacy(run.summary["rounds"])


def _overall(run: FinishedRun) -> Mapping[int, float]:
    return overall_efficacy(run.summary["rounds"])


def _growth(weight: str) -> _Points:
    def growth(run: FinishedRun) -> dict[int, float]:
        known = [line for line in kept(run.rounds) if weight in line["weight_norms"]]
        if not known:
            return {}
        first = known[0].get("base_norms", {}).get(weight)
        before = first or known[0]["weight_norms"][weight]
        return {
            line["server_round"]: line["weight_norms"][weight] / before
            for line in known
        }

    return growth
