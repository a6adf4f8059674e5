"""A comparison's tables."""

from collections.abc import Sequence

from flwr_collabedit.evaluation.intervals import Estimate
from flwr_collabedit.evaluation.report import Column, Row
from simulations.comparison import BEFORE, Comparison, Group
from simulations.comparison_after import after_columns, after_rows
from simulations.comparison_conflicts import CONFLICT_COLUMNS, conflict_figures
from simulations.comparison_later import later_columns, later_figures
from simulations.comparison_personal import PERSONAL_COLUMNS, personal_figures
from simulations.comparison_words import shown_value
from simulations.pooled_share import pooled_share

Table = tuple[str, Sequence[Column], Sequence[Row]]

NOTE = (
    "Mean and 95 % t-interval over seeds, in percent. ES, PS, NS: the wanted target is "
    "likelier than the other one on the rewrite, paraphrase and neighborhood prompts; "
    "Score is their harmonic mean. EA, PA, NA: every token of the wanted target is the "
    "likeliest; accuracy Score is their harmonic mean. Score saturates and can favour "
    "a method that damages the model, so read it beside accuracy Score, NA and the "
    "retention of other facts about the edited subjects. "
    "'of pooled' is the share, in percent and seed by seed, of what one party with all "
    "edits reaches: the method's own pooled reference, or that of one with the same "
    "editor. "
    "Personal models: received are others' facts, written from their vectors; saved "
    "are the gradient steps that those would have cost again. "
    "Later rounds: after the last one that was not undone; the first edits are those "
    "up to the first scoring, forgetting is what EA has lost since it was best, the "
    "L1 norm is that of the layer that has grown most. "
    "After so many edits: of all edits so far, where all methods were scored; 'mean' "
    "is that of EA, PA and NA, the L1 norms are of all weights that the editor edits "
    "together, and of what it has added to them, against the unedited ones'. "
    "Rows are ordered by accuracy Score. Seconds are of the whole run with its pooled "
    "reference; the first run of a sweep that needs some targets optimises them, the "
    "others read them."
)

_SCORES = ("Score", "accuracy_score", "ES", "PS", "NS", "EA", "PA", "NA")
_SHARED = ("Score", "accuracy_score")
_SCORE_COLUMNS = (
    Column("Score", "Score", "text"),
    Column("share of Score", "of pooled", "text"),
    Column("accuracy_score", "accuracy Score", "text"),
    Column("share of accuracy_score", "of pooled", "text"),
    *(Column(name, name, "text") for name in (*_SCORES[2:], "seeds")),
)
_KIB = 1024


def tables(comparison: Comparison) -> list[Table]:
    """Return the tables of methods, scores, damage and cost."""
    where = [Column(name, name, "text") for name in comparison.conditions]
    first = [Column("method", "method", "text"), *where]
    ordered = _by_accuracy(comparison)
    found: list[Table] = [
        ("Scores", [*first, *_SCORE_COLUMNS], _score_rows(comparison, ordered)),
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
    personal = [(group, personal_figures(group)) for group in ordered]
    rows = [{**_place(group), **row} for group, row in personal if row is not None]
    if rows:
        found.insert(1, ("Personal models", [*first, *PERSONAL_COLUMNS], rows))
    later = [(group, later_figures(group)) for group in ordered]
    rows = [{**_place(group), **row} for group, row in later if row is not None]
    if rows:
        found.insert(
            -1, ("What later rounds did", [*first, *later_columns(rows)], rows)
        )
    after = [
        {**_place(group), **row}
        for groups in comparison.facets().values()
        for group, row in after_rows(groups)
    ]
    if after:
        found.insert(
            -1, ("After so many edits", [*first, *after_columns(after)], after)
        )
    contested = [(group, conflict_figures(group)) for group in ordered]
    rows = [{**_place(group), **row} for group, row in contested if row is not None]
    if rows:
        found.insert(1, ("Contradicting edits", [*first, *CONFLICT_COLUMNS], rows))
    if comparison.method_settings:
        columns = [
            Column(n, n, "text") for n in ("method", *comparison.method_settings)
        ]
        settings = [_method_row(comparison, m) for m in _method_names(comparison)]
        found.insert(0, ("What each method stands for", columns, settings))
    return found


def _by_accuracy(comparison: Comparison) -> list[Group]:
    """Return groups by condition, then accuracy Score; the unedited model last."""
    return [
        group
        for groups in comparison.facets().values()
        for group in sorted(
            groups, key=lambda g: (g.method == BEFORE, -g.mean("accuracy_score"))
        )
    ]


def _score_rows(comparison: Comparison, ordered: Sequence[Group]) -> list[Row]:
    rows: list[Row] = []
    for groups in comparison.facets().values():
        for group in sorted(groups, key=ordered.index):
            shown = {name: _shown(group.scores.get(name)) for name in _SCORES}
            shares = {
                f"share of {name}": _shown(pooled_share(group, groups, name))
                for name in _SHARED
            }
            rows.append(
                {**_place(group), **shown, **shares, "seeds": str(group.num_seeds)}
            )
    return rows


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
    shown = {n: shown_value(run.settings.get(n)) for n in comparison.method_settings}
    return {"method": method, **shown}
