"""Runs that differ in their seed only are one group; groups are what is compared."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flwr_collabedit.evaluation.intervals import Estimate
from simulations.finished_runs import FinishedRun
from simulations.sweep_file import SWEEP_FOLDERS

SEED = "seed"
BEFORE = "before editing"
NOT_COMPARED = (
    *SWEEP_FOLDERS,
    *("evaluate-every", "evaluate-before", "pooled-reference"),
)
"""Settings that say where results lie and what else is measured."""


@dataclass(frozen=True)
class Group:
    """Results that differ in their seed only.

    Attributes
    ----------
    method : str
        What is compared; a pooled reference is a method of its own.
    conditions : Mapping of str to scalar
        The settings, other than the method's own and the seed, that vary over the runs.
    by_seed : Mapping of str to Mapping of int to float
        Final scores: score to seed to value.
    runs : sequence of FinishedRun
        The group's runs; empty for references and for the state before editing.
    reference_for : str
        The method that this one is the pooled reference of.
    """

    method: str
    conditions: Mapping[str, Any]
    by_seed: Mapping[str, Mapping[int, float]]
    runs: Sequence[FinishedRun] = ()
    reference_for: str = ""

    @cached_property
    def scores(self) -> Mapping[str, Estimate]:
        """Final scores over the seeds."""
        return {name: Estimate.of([*v.values()]) for name, v in self.by_seed.items()}

    def mean(self, score: str) -> float:
        """Return a score's mean over the seeds, 0 where it was not measured."""
        return self.scores[score].mean if score in self.scores else 0.0

    def figure(self, name: str) -> Estimate | None:
        """Return a number of ``summary.json`` over the seeds, or ``None``."""
        found = [run.summary[name] for run in self.runs]
        known = [value for value in found if value is not None]
        return Estimate.of(known) if known else None

    @property
    def largest_gap(self) -> float | None:
        """The largest relative gap to the pooled delta over layers and seeds."""
        gaps = [
            gap for run in self.runs for gap in run.summary["gap_to_pooled"].values()
        ]
        return max(gaps, default=None)

    @property
    def num_seeds(self) -> int:
        """Number of seeds behind the scores."""
        return max((estimate.count for estimate in self.scores.values()), default=0)


@dataclass(frozen=True)
class Comparison:
    """A set of runs of one model, grouped.

    Attributes
    ----------
    runs : sequence of FinishedRun
        All of them.
    conditions : sequence of str
        Settings that vary and are neither the seed nor decided by the method.
    method_settings : sequence of str
        Settings that vary and are decided by the method.
    groups : sequence of Group
        Methods, each followed by its pooled reference; then the state before editing.
    """

    runs: Sequence[FinishedRun]
    conditions: Sequence[str]
    method_settings: Sequence[str]
    groups: Sequence[Group]

    def facets(self, axis: str = "") -> dict[str, list[Group]]:
        """Return the groups by their conditions, in words, but for those of an axis."""
        found: dict[str, list[Group]] = {}
        for group in self.groups:
            text = ", ".join(
                f"{k} {v}" for k, v in group.conditions.items() if k != axis
            )
            found.setdefault(text, []).append(group)
        return found

    def methods(self) -> list[Group]:
        """Return the groups of runs, without references."""
        return [group for group in self.groups if group.runs]


def compare(runs: Sequence[FinishedRun]) -> Comparison:
    """Return the runs in groups, in the order in which they were given."""
    varying = [name for name in _names(runs) if len(_values(runs, name)) > 1]
    decided = [name for name in varying if _is_decided_by_method(runs, name)]
    conditions = [name for name in varying if name not in (*decided, SEED)]
    buckets: dict[tuple[Any, ...], list[FinishedRun]] = {}
    for run in runs:
        point = tuple(run.settings.get(name) for name in conditions)
        buckets.setdefault((point, run.method), []).append(run)
    points = sorted({point for point, _ in buckets}, key=_sort_key)
    groups: list[Group] = []
    for point in points:
        where = dict(zip(conditions, point, strict=True))
        inside = {m: found for (p, m), found in buckets.items() if p == point}
        for method, found in inside.items():
            groups += _groups_of(method, where, found)
        all_runs = [run for found in inside.values() for run in found]
        if before := _by_seed(all_runs, "before"):
            groups.append(Group(BEFORE, where, before))
    return Comparison(runs, conditions, decided, groups)


def _groups_of(
    method: str, where: Mapping[str, Any], runs: Sequence[FinishedRun]
) -> Iterator[Group]:
    yield Group(method, where, _by_seed(runs, ""), runs)
    pooled = _by_seed(runs, "pooled")
    if pooled:
        yield Group(f"{method}: pooled", where, pooled, reference_for=method)


def _by_seed(runs: Sequence[FinishedRun], which: str) -> dict[str, dict[int, float]]:
    """Return each score by seed; runs that repeat a seed count as one value."""
    found: dict[str, dict[int, list[float]]] = {}
    for run in runs:
        scores = run.summary["scores"].get(which, {}) if which else run.scores
        for name, value in scores.items():
            found.setdefault(name, {}).setdefault(run.settings[SEED], []).append(value)
    return {
        name: {seed: sum(values) / len(values) for seed, values in seeds.items()}
        for name, seeds in found.items()
    }


def _sort_key(point: tuple[Any, ...]) -> list[tuple[str, Any]]:
    """Order numbers by size and keep values of different types apart."""
    return [(type(value).__name__, value) for value in point]


def _names(runs: Sequence[FinishedRun]) -> list[str]:
    names = dict.fromkeys(name for run in runs for name in run.settings)
    return [name for name in names if name not in NOT_COMPARED]


def _values(runs: Sequence[FinishedRun], name: str) -> list[Any]:
    return list(dict.fromkeys(run.settings.get(name) for run in runs))


def _is_decided_by_method(runs: Sequence[FinishedRun], name: str) -> bool:
    methods = dict.fromkeys(run.method for run in runs)
    return name != SEED and all(
        len(_values([run for run in runs if run.method == method], name)) == 1
        for method in methods
    )
