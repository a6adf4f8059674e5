"""A comparison's figures, each only where the runs vary in what it shows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from flwr_collabedit.evaluation.intervals import Estimate
from flwr_collabedit.evaluation.plots import Panel, Series, draw_bars, draw_lines
from simulations.comparison import BEFORE, Comparison, Group
from simulations.comparison_lines import INTERVALS, per_run_lines
from simulations.comparison_rounds import (
    Drawing,
    draw_damage,
    draw_efficacy,
    draw_norms,
    draw_scores,
)
from simulations.finished_runs import FinishedRun
from simulations.round_figures import layer_of

EDITS, CLIENTS = "num-edits", "num-clients"

_KIB = 1024
_SCORES = {
    "Score": "Score",
    "accuracy_score": "accuracy Score",
    "NA": "neighborhood accuracy",
}


@dataclass(frozen=True)
class Picture:
    """A figure: file name without ending, title, what it shows, PNG."""

    name: str
    title: str
    caption: str
    png: bytes


def pictures(comparison: Comparison) -> Iterator[Picture]:
    """Yield the figures that these runs have something to say for.

    One picture shows the methods under one set of conditions.
    """
    yield from _against(comparison, EDITS, "number of edits")
    yield from _for_facets(comparison, "success", "Success and accuracy", _success)
    yield from _against(comparison, CLIENTS, "number of clients")
    yield from _for_facets(comparison, "gap_to_pooled", "Gap to the pooled edit", _gaps)
    yield from _for_facets(
        comparison, "bytes_against_edits", "Upload against edits", _bytes, axis=EDITS
    )
    yield from _for_facets(
        comparison, "norm_over_rounds", "L1 norm over rounds", draw_norms
    )
    yield from _for_facets(
        *(comparison, "efficacy_over_rounds"),
        *("What later rounds did to earlier edits", draw_efficacy),
    )
    yield from _for_facets(
        *(comparison, "scores_over_rounds"),
        *("Paraphrases and neighborhood over rounds", draw_scores),
    )
    yield from _for_facets(
        comparison, "damage_over_rounds", "Damage over rounds", draw_damage
    )


def _for_facets(
    comparison: Comparison,
    name: str,
    title: str,
    draw: Callable[[Sequence[Group]], Drawing | None],
    *,
    axis: str = "",
) -> Iterator[Picture]:
    if axis and axis not in comparison.conditions:
        return
    for number, (where, groups) in enumerate(comparison.facets(axis).items()):
        drawn = draw([group for group in groups if group.method != BEFORE])
        if drawn is not None:
            full = f"{title}, {where}" if where else title
            yield Picture(f"{name}_{number}", full, *drawn)


def _against(comparison: Comparison, axis: str, x_label: str) -> Iterator[Picture]:
    def draw(groups: Sequence[Group]) -> Drawing:
        panels = [
            Panel(
                title,
                x_label,
                f"{title}, %",
                _lines(groups, axis, _score(score)),
                percent=True,
            )
            for score, title in _SCORES.items()
        ]
        caption = f"{INTERVALS}; dashed: one party with all the edits."
        return caption, draw_lines(panels)

    name = f"score_against_{axis.removeprefix('num-')}"
    return _for_facets(comparison, name, f"Score against {x_label}", draw, axis=axis)


def _success(groups: Sequence[Group]) -> Drawing | None:
    if sum(bool(group.runs) for group in groups) < 2:
        return None
    panels = [
        Panel(title, "", "cases, %", [_bars(g, names) for g in groups], percent=True)
        for title, names in (
            ("Success", ("ES", "PS", "NS", "Score")),
            ("Accuracy", ("EA", "PA", "NA", "accuracy_score")),
        )
    ]
    caption = (
        "Score is the harmonic mean of the other three. "
        f"{INTERVALS}; hatched: one party with all the edits."
    )
    return caption, draw_bars(panels)


def _gaps(groups: Sequence[Group]) -> Drawing | None:
    series = per_run_lines(groups, _layer_gaps)
    if not series:
        return None
    panel = Panel(
        "Gap to pooled", "edited layer", "relative Frobenius gap", series, log_y=True
    )
    caption = (
        "Frobenius norm of merged minus pooled delta, divided by that of the pooled "
        f"one, by edited layer. {INTERVALS}."
    )
    return caption, draw_lines([panel])


def _bytes(groups: Sequence[Group]) -> Drawing:
    lines = _lines(groups, EDITS, _upload)
    panel = Panel("Upload", "number of edits", "upload a client, KiB", lines)
    caption = "Array bytes that one client sends in all rounds, mean over clients."
    return caption, draw_lines([panel])


def _lines(
    groups: Sequence[Group], axis: str, value: Callable[[Group], Estimate | None]
) -> list[Series]:
    """Return a line for every method, in order along the axis."""
    points: dict[tuple[str, str], dict[float, Estimate]] = {}
    for group in groups:
        estimate = value(group)
        if estimate is not None:
            line = points.setdefault((group.method, group.reference_for), {})
            line[group.conditions[axis]] = estimate
    return [
        Series(method, dict(sorted(line.items())), reference_for)
        for (method, reference_for), line in points.items()
    ]


def _bars(group: Group, names: Sequence[str]) -> Series:
    shown = {n.replace("accuracy_score", "Score"): group.scores.get(n) for n in names}
    known = {name: value for name, value in shown.items() if value is not None}
    return Series(group.method, known, group.reference_for)


def _score(name: str) -> Callable[[Group], Estimate | None]:
    return lambda group: group.scores.get(name)


def _upload(group: Group) -> Estimate | None:
    found = group.figure("upload_bytes_per_client")
    return found and Estimate(found.mean / _KIB, None, found.count)


def _layer_gaps(run: FinishedRun) -> dict[str, float]:
    found: dict[str, float] = run.summary["gap_to_pooled"]
    return {layer_of(name): gap for name, gap in found.items()}
