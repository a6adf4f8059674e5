"""What a comparison says in words: what was compared, and the order of the methods."""

import json
from collections.abc import Sequence
from typing import Any

from flwr_collabedit.evaluation.intervals import Estimate
from simulations.comparison import NOT_COMPARED, SEED, Comparison, Group


def sentences(comparison: Comparison) -> list[str]:
    """Return in words what was compared, and the order of the methods."""
    runs = comparison.runs
    seeds = sorted({run.settings[SEED] for run in runs})
    head = (
        f"{len(runs)} runs of the model {runs[0].settings['model']} with "
        f"{'seed' if len(seeds) == 1 else 'seeds'} {_listed(seeds)}."
    )
    differing = [
        f"{name} ({_listed(_in_order({run.settings.get(name) for run in runs}))})"
        for name in comparison.conditions
    ]
    if differing:
        differ = f"Besides the method, the runs differ in {'; '.join(differing)}."
    elif comparison.method_settings:
        differ = "The runs differ in the method only."
    else:
        differ = "The runs differ in nothing but the seed."
    return [head, differ, _alike(comparison), *_made_with(comparison)]


def orders(comparison: Comparison) -> list[str]:
    """Return, for every condition, the methods by Score and by accuracy Score."""
    found = []
    for where, all_groups in comparison.facets().items():
        groups = [group for group in all_groups if group.runs]
        if len(groups) < 2:
            continue
        by_score = _order(groups, "Score")
        by_accuracy = _order(groups, "accuracy_score")
        verdict = "the same order" if by_score[1] == by_accuracy[1] else "another order"
        prefix = f"{where}: " if where else ""
        found.append(
            f"{prefix}by Score {by_score[0]}; by accuracy Score, {verdict}: "
            f"{by_accuracy[0]}."
        )
    return found


def shown_value(value: object) -> str:
    """Return a setting's value as a reader expects it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return '""' if value == "" else str(value)


def shown_estimate(estimate: Estimate, form: str) -> str:
    """Return a mean in a number format, and its interval in the same without sign."""
    text = f"{estimate.mean:{form}}"
    if estimate.half_width is None:
        return text
    return f"{text} ± {estimate.half_width:{form.removeprefix('+')}}"


def _order(groups: Sequence[Group], score: str) -> tuple[str, list[str]]:
    ranked = sorted(groups, key=lambda group: -group.mean(score))
    text = " > ".join(f"{g.method} ({g.scores[score]})" for g in ranked)
    return text, [group.method for group in ranked]


def _alike(comparison: Comparison) -> str:
    first = comparison.runs[0].settings
    varying = (*comparison.conditions, *comparison.method_settings)
    left_out = {*varying, *NOT_COMPARED, SEED, "model"}
    alike = [f"{k} {shown_value(v)}" for k, v in first.items() if k not in left_out]
    return f"All have {', '.join(alike)}."


def _made_with(comparison: Comparison) -> list[str]:
    """Return a warning where the runs were made by different code or packages."""
    found: dict[str, set[str]] = {}
    for run in comparison.runs:
        path = run.folder / "settings.json"
        if not path.exists():
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        made_with = {"commit": content["commit"], **content["packages"]}
        for name, version in made_with.items():
            found.setdefault(name, set()).add(version)
    return [
        f"They were made with different {name}: {_listed(sorted(versions))}."
        for name, versions in found.items()
        if len(versions) > 1
    ]


def _in_order(values: set[Any]) -> list[Any]:
    """Return settings by size where they are numbers, else by name."""
    return sorted(values, key=lambda value: (isinstance(value, str), value))


def _listed(values: Any) -> str:
    return ", ".join(shown_value(value) for value in values)
