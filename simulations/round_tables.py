"""Tables of a run over many rounds: health, declarations, what is left of edits."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from flwr_collabedit.evaluation.report import Column, Row
from simulations.round_figures import (
    EfficacyByScoring,
    Round,
    norm_growth,
    overall_efficacy,
)

RoundTable = tuple[str, tuple[Column, ...], list[Row], str]
"""Title, columns, rows, and what the columns mean."""

# Up to this many rounds there is room for a column each in 80 characters.
_MOST_COLUMNS = 6
_ROUND = Column("round", "round", "text")
_DECLARED = (
    "present",
    "conflicts",
    "overlaps",
    "left-out",
    "withdrawn",
    "overruled",
)


def round_tables(
    rounds: Sequence[Round], *, presence_is_measured: bool = True
) -> list[RoundTable]:
    """Return the tables that have content.

    Parameters
    ----------
    rounds : sequence of mapping
        Of ``summary.json``.
    presence_is_measured : bool
        Whether clients looked for edits that the model has already; otherwise their
        number is 0 and not shown.
    """
    hidden = () if presence_is_measured else ("present",)
    found = [
        _health(rounds),
        _declarations(rounds, [name for name in _DECLARED if name not in hidden]),
        _efficacies(rounds),
        _forgetting(rounds),
    ]
    return [table for table in found if table is not None]


def _health(rounds: Sequence[Round]) -> RoundTable | None:
    growths = [norm_growth(r, r.get("base_norms", {})) for r in rounds]
    layers = ", ".join(dict.fromkeys(layer for found in growths for layer in found))
    rows: list[Row] = []
    for report, growth in zip(rounds, growths, strict=True):
        if not (report.get("health") or growth):
            continue
        shown = [f"{percent:+.1f}" for percent in growth.values()]
        rows.append(
            {
                "round": str(report["server_round"]),
                **_health_cells(report.get("health", {})),
                "norms": ", ".join(shown) or None,
                "noted": _noted(report),
            }
        )
    columns = (
        Column("perplexity", "perplexity", "text"),
        Column("kl", "KL", "scientific"),
        Column("norms", f"L1 of layers {layers}, %", "text"),
        Column("noted", "noted", "text"),
    )
    if not rows:
        return None
    meaning = (
        "Perplexity of held-out text, before all edits → now; KL: divergence from the "
        "unedited model on neutral prompts, nats; L1: growth of the edited weights' "
        "L1 norm."
    )
    return ("Health of the model", _known((_ROUND, *columns), rows), rows, meaning)


def _health_cells(health: Mapping[str, float]) -> Row:
    perplexities = (health.get("base-perplexity"), health.get("perplexity"))
    known = [f"{p:.3f}" for p in perplexities if p is not None]
    return {"perplexity": " → ".join(known) or None, "kl": health.get("kl-to-base")}


def _noted(report: Round) -> str:
    number = len(report.get("warnings", ()))
    warned = f"{number} warning{'s' if number > 1 else ''}" if number else ""
    return ", ".join(filter(None, ("undone" if report.get("refused") else "", warned)))


def _declarations(rounds: Sequence[Round], names: Sequence[str]) -> RoundTable | None:
    rows: list[Row] = []
    for report in rounds:
        declared = report.get("declared", {})
        inactive = report.get("efficacy_by_round", {}).get("inactive", {})
        if declared or inactive:
            counts = {n: str(declared[n]) for n in names if n in declared}
            number = str(report["server_round"])
            rows.append({"round": number, **counts, "EA": inactive.get("EA")})
    columns = (
        *(Column(name, name.replace("-", " "), "text") for name in names),
        Column("EA", "EA of inactive"),
    )
    if not rows:
        return None
    meaning = (
        "Edits that the model had already; facts with several targets, and with "
        "several edits of one target; edits left out, and taken back. Inactive: all "
        "left out or taken back so far."
    )
    return ("Declarations", _known((_ROUND, *columns), rows), rows, meaning)


def _efficacies(rounds: Sequence[Round]) -> RoundTable | None:
    scored = EfficacyByScoring.of(rounds)
    if scored is None:
        return None
    names = scored.names if len(scored.names) <= _MOST_COLUMNS else scored.names[:1]
    overall = overall_efficacy(rounds)
    rows: list[Row] = [
        {
            "round": str(group[-1]),
            **dict(zip(names, row, strict=False)),
            "all": overall.get(group[-1]),
        }
        for group, row in zip(scored.rounds, scored.matrix.rows, strict=True)
    ]
    columns = (
        Column("round", "after round", "text"),
        *(Column(name, name) for name in names),
        Column("all", "all so far"),
    )
    return ("EA of earlier rounds' edits", columns, rows, "")


def _forgetting(rounds: Sequence[Round]) -> RoundTable | None:
    scored = EfficacyByScoring.of(rounds)
    if scored is None:
        return None
    matrix = scored.matrix
    known = [value for value in matrix.last_row if value is not None]
    row: Row = {
        "first": matrix.last_row[0],
        "all": overall_efficacy(rounds).get(scored.rounds[-1][-1]),
        "mean": fmean(known) if known else None,
        "loss": matrix.mean_loss,
        "forgetting": matrix.mean_forgetting,
    }
    columns = (
        Column("first", scored.names[0]),
        Column("all", "all edits"),
        Column("mean", "mean of rounds"),
        Column("loss", "mean loss"),
        Column("forgetting", "mean forgetting"),
    )
    meaning = (
        "EA in percent of a round's edits, of those that still count. Loss: since they "
        "were edited; forgetting: since EA was best; both are means over earlier "
        "rounds."
    )
    if any(report.get("refused") for report in rounds):
        meaning += " 'All' counts the edits of undone rounds too, the rest does not."
    return ("EA in the end, and forgetting", columns, [row], meaning)


def _known(columns: Sequence[Column], rows: Sequence[Row]) -> tuple[Column, ...]:
    """Return the columns in which any row has something to show."""
    return tuple(
        c for c in columns if any(row.get(c.key) not in (None, "") for row in rows)
    )
