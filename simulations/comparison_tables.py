"""A comparison's tables and sentences."""

import json
from collections.abc import Sequence
from typing import Any

from flwr_collabedit.evaluation.intervals import Estimate
from flwr_collabedit.evaluation.report import Column, Row
from simulations.comparison import BEFORE, NOT_COMPARED, SEED, Comparison, Group

Table = tuple[str, Sequence[Column], Sequence[Row]]

NOTE = (
    "Mean and 95 % t-interval over seeds, in percent. ES, PS, NS: the wanted target is "
    "likelier than the other one on the rewrite, paraphrase and neighborhood prompts; "
    "Score is their harmonic mean. EA, PA, NA: every token of the wanted target is the "
    "likeliest; accuracy Score is their harmonic mean. Score saturates and can favour "
    "a method that damages the model, so read it beside accuracy Score, NA and the "
    "retention of other facts about the edited subjects. "
    "Rows are ordered by accuracy Score. Seconds are of the whole run with its pooled "
    "reference; the first run of a sweep that needs some targets optimises them, the "
    "others read them."
)

_SCORES = ("Score", "accuracy_score", "ES", "PS", "NS", "EA", "PA", "NA")
_HEADERS = {"accuracy_score": "accuracy Score"}
_KIB = 1024


def tables(comparison: Comparison) -> list[Table]:
    """Return the tables of methods, scores, damage and cost."""
    where = [Column(name, name, "text") for name in comparison.conditions]
    first = [Column("method", "method", "text"), *where]
    ordered = _by_accuracy(comparison)
    names = [*_SCORES]
    scores = [Column(n, _HEADERS.get(n, n), "text") for n in (*names, "seeds")]
    found: list[Table] = [
        ("Scores", [*first, *scores], [_score_row(g, names) for g in ordered]),
        (
            "Damage",
            [
                *first,
                *(Column(n, n, "text") for n in ("NS", "NA", "NA lost")),
                *(Column(n, n, "text") for n in ("retention", "retention lost")),
            ],
            _damage_rows(comparison, ordered),
        ),
        (
            "Cost, and gap to the pooled edit",
            [
                *first,
                Column("upload", "upload a client, KiB", "text"),
                Column("seconds", "seconds", "text"),
                Column("gap", "largest relative gap", "scientific"),
            ],
            [_cost_row(group) for group in ordered if group.runs],
        ),
    ]
    if comparison.method_settings:
        columns = [
            Column(n, n, "text") for n in ("method", *comparison.method_settings)
        ]
        rows = [_method_row(comparison, m) for m in _method_names(comparison)]
        found.insert(0, ("What each method stands for", columns, rows))
    return found


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


def _order(groups: Sequence[Group], score: str) -> tuple[str, list[str]]:
    ranked = sorted(groups, key=lambda group: -_mean(group, score))
    text = " > ".join(f"{g.method} ({g.scores[score]})" for g in ranked)
    return text, [group.method for group in ranked]


def _by_accuracy(comparison: Comparison) -> list[Group]:
    """Return groups by condition, then accuracy Score; the unedited model last."""
    return [
        group
        for groups in comparison.facets().values()
        for group in sorted(
            groups, key=lambda g: (g.method == BEFORE, -_mean(g, "accuracy_score"))
        )
    ]


def _mean(group: Group, score: str) -> float:
    return group.scores[score].mean if score in group.scores else 0.0


def _score_row(group: Group, names: Sequence[str]) -> Row:
    row = {name: _shown(group.scores.get(name)) for name in names}
    return {**_place(group), **row, "seeds": str(group.num_seeds)}


def _damage_rows(comparison: Comparison, ordered: Sequence[Group]) -> list[Row]:
    rows: list[Row] = []
    for groups in comparison.facets().values():
        reference = next((group for group in groups if group.method == BEFORE), None)
        for group in sorted(groups, key=ordered.index):
            shown = {n: _shown(group.scores.get(n)) for n in ("NS", "NA", "retention")}
            lost = {
                f"{n} lost": _lost(reference, group, n) for n in ("NA", "retention")
            }
            rows.append({**_place(group), **shown, **lost})
    return rows


def _lost(before: Group | None, group: Group, name: str) -> str | None:
    if before is None or group is before:
        return None
    if name not in before.scores or name not in group.scores:
        return None
    return f"{before.scores[name].mean - group.scores[name].mean:.1f}"


def _cost_row(group: Group) -> Row:
    upload = group.figure("upload_bytes_per_client")
    return {
        **_place(group),
        "upload": None if upload is None else f"{upload.mean / _KIB:,.1f}",
        "seconds": _shown(group.figure("seconds")),
        "gap": group.largest_gap,
    }


def _place(group: Group) -> dict[str, str]:
    return {"method": group.method, **{k: str(v) for k, v in group.conditions.items()}}


def _shown(estimate: Estimate | None) -> str | None:
    return None if estimate is None else str(estimate)


def _method_names(comparison: Comparison) -> list[str]:
    return list(dict.fromkeys(run.method for run in comparison.runs))


def _method_row(comparison: Comparison, method: str) -> Row:
    run = next(run for run in comparison.runs if run.method == method)
    shown = {n: _value(run.settings.get(n)) for n in comparison.method_settings}
    return {"method": method, **shown}


def _alike(comparison: Comparison) -> str:
    first = comparison.runs[0].settings
    varying = (*comparison.conditions, *comparison.method_settings)
    left_out = {*varying, *NOT_COMPARED, SEED, "model"}
    alike = [f"{k} {_value(v)}" for k, v in first.items() if k not in left_out]
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
    return ", ".join(_value(value) for value in values)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return '""' if value == "" else str(value)
