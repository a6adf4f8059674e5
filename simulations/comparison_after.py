"""A comparison's table of scores and damage after so many edits.

As in table 2 and figure 6 of Huang, Liu et al., "Reasons and Solutions for the Decline
in Model Performance after Editing" (D4S), NeurIPS 2024.
"""

from collections.abc import Mapping, Sequence

from flwr_collabedit.evaluation.intervals import Estimate
from flwr_collabedit.evaluation.report import Column, Row
from simulations.comparison import Group
from simulations.comparison_later import norms_before, over_seeds
from simulations.comparison_words import shown_estimate
from simulations.finished_runs import FinishedRun
from simulations.round_scores import edits_so_far, scores_by_round

# Figure to header and number format.
_FIGURES = {
    "EA": ("EA", ".1f"),
    "PA": ("PA", ".1f"),
    "NA": ("NA", ".1f"),
    "mean": ("mean", ".1f"),
    "Score": ("Score", ".1f"),
    "norm": ("L1 norm, %", "+.1f"),
    "delta": ("L1 norm of the change, %", ".1f"),
    "perplexity": ("perplexity, %", "+.2f"),
    "kl": ("KL, nats", ".1e"),
}
_MOST = 3

_Figures = Mapping[int, Mapping[str, float]]


def after_columns(rows: Sequence[Row]) -> list[Column]:
    """Return the columns in which any of the rows has something to show."""
    shown = {"edits": ("after edits", ""), **_FIGURES}
    return [
        Column(name, header, "text")
        for name, (header, _) in shown.items()
        if any(row.get(name) is not None for row in rows)
    ]


def after_rows(groups: Sequence[Group]) -> list[tuple[Group, Row]]:
    """Return the rows of methods under the same conditions.

    Parameters
    ----------
    groups : sequence of Group
        Those without several scored rounds have none.

    Returns
    -------
    list of (Group, row)
        By number of edits, then the best mean first: at most three of the numbers at
        which every run was scored, the first, the last and one half-way.
    """
    scored = [(group, [by_edits(run) for run in group.runs]) for group in groups]
    several = [(g, found) for g, found in scored if max(map(len, found), default=0) > 1]
    everywhere = [set(figures) for _, found in several for figures in found]
    common = sorted(set.intersection(*everywhere)) if everywhere else []
    rows: list[tuple[Group, Row]] = []
    for edits in _spread(common):
        estimates = [
            (group, over_seeds(group.runs, [one[edits] for one in found]))
            for group, found in several
        ]
        estimates.sort(key=lambda pair: -pair[1].get("mean", pair[1]["EA"]).mean)
        rows += [(group, _cells(edits, found)) for group, found in estimates]
    return rows


def _cells(edits: int, estimates: Mapping[str, Estimate]) -> Row:
    cells = {
        name: shown_estimate(estimates[name], form)
        for name, (_, form) in _FIGURES.items()
        if name in estimates
    }
    return {"edits": f"{edits:,}", **cells}


def by_edits(run: FinishedRun) -> _Figures:
    """Return the figures of a run's scored rounds, by the number of edits so far."""
    rounds = run.summary["rounds"]
    edits = edits_so_far(rounds)
    found = scores_by_round(rounds, norms_before(run))
    return {edits[number]: figures for number, figures in found.items()}


def _spread(numbers: Sequence[int]) -> list[int]:
    """Return the first, the last and what is evenly between, three at most."""
    if len(numbers) <= _MOST:
        return list(numbers)
    last = len(numbers) - 1
    return [numbers[round(i * last / (_MOST - 1))] for i in range(_MOST)]
