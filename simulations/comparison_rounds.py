"""Figures of runs of several rounds: earlier edits, scores, norms and damage."""

from collections.abc import Mapping, Sequence

from flwr_collabedit.evaluation.plots import Panel, draw_lines
from simulations.comparison import Group
from simulations.comparison_later import norms_before
from simulations.comparison_lines import (
    INTERVALS,
    Points,
    have_several_rounds,
    per_run_lines,
    placed,
    x_label,
)
from simulations.finished_runs import FinishedRun
from simulations.round_figures import (
    first_efficacy,
    kept,
    layer_of,
    overall_efficacy,
)
from simulations.round_scores import scores_by_round

Drawing = tuple[str, bytes]
"""Caption and PNG."""

_MOST_LAYERS = 3


def draw_norms(groups: Sequence[Group]) -> Drawing | None:
    """Draw the growth of the first edited layers' L1 norms."""
    runs = [run for group in groups for run in group.runs]
    if not have_several_rounds(runs):
        return None
    names = dict.fromkeys(k for run in runs for k in run.rounds[-1]["weight_norms"])
    weights = [name for name in names if name.startswith("l1/")]
    if not weights:
        return None
    panels = [
        Panel(
            f"layer {layer_of(weight)}",
            x_label(runs),
            "L1 norm / unedited",
            per_run_lines(groups, placed(runs, _growth(weight))),
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
    if not have_several_rounds(runs):
        return None
    panels = [
        Panel(
            title,
            x_label(runs),
            "EA, %",
            per_run_lines(groups, placed(runs, points)),
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


def draw_scores(groups: Sequence[Group]) -> Drawing | None:
    """Draw paraphrase and neighborhood accuracy of all edits so far."""
    drawn = _figure_panels(
        groups, {"PA": ("Paraphrases", "PA, %"), "NA": ("Neighborhood", "NA, %")}
    )
    caption = (
        "PA and NA of all edits so far, after each round that was scored and not "
        f"undone. {INTERVALS}."
    )
    return (caption, draw_lines(drawn)) if drawn else None


def draw_damage(groups: Sequence[Group]) -> Drawing | None:
    """Draw what the edits have added to the weights, and what that has done."""
    drawn = _figure_panels(
        groups,
        {
            "delta": ("Change of the weights", "L1 norm, % of the unedited"),
            "perplexity": ("Held-out text", "perplexity / unedited"),
            "kl": ("Neutral prompts", "KL from the unedited, nats"),
        },
    )
    caption = (
        "L1 norm of what the edits have added to the weights that the editor edits, "
        "perplexity of held-out text and divergence from the unedited model, after "
        f"each round that was scored and not undone. {INTERVALS}."
    )
    return (caption, draw_lines(drawn)) if drawn else None


def _figure_panels(
    groups: Sequence[Group], wanted: Mapping[str, tuple[str, str]]
) -> list[Panel]:
    """Return the panels of some figures, those that several rounds have."""
    runs = [run for group in groups for run in group.runs]
    panels = [
        Panel(
            title,
            x_label(runs),
            label,
            per_run_lines(groups, placed(runs, _scored(name))),
            percent=name in ("PA", "NA"),
            log_y=name not in ("PA", "NA"),
        )
        for name, (title, label) in wanted.items()
    ]
    several = max((len(s.points) for p in panels for s in p.series), default=0) > 1
    return [panel for panel in panels if panel.series] if several else []


def _first(run: FinishedRun) -> Mapping[int, float]:
    return first_efficacy(run.summary["rounds"])


def _overall(run: FinishedRun) -> Mapping[int, float]:
    return overall_efficacy(run.summary["rounds"])


def _scored(figure: str) -> Points:
    def scored(run: FinishedRun) -> dict[int, float]:
        found = scores_by_round(run.summary["rounds"], norms_before(run))
        known = {n: f[figure] for n, f in found.items() if figure in f}
        if figure == "perplexity":
            return {n: 1 + percent / 100 for n, percent in known.items()}
        return known

    return scored


def _growth(weight: str) -> Points:
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
