"""Result tables, for a terminal and for Markdown, from the same columns and rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.table import Table
from rich.text import Text

ABSENT = "\u2013"

Row = Mapping[str, str | float | None]
"""Column key to value; a missing key and ``None`` are shown as absent."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    key : str
        Where the column's value is found in a row.
    header : str
        What is shown above it.
    style : {"text", "percent", "scientific"}
        ``percent`` takes numbers in 0-100 and shows one decimal; ``scientific`` shows
        two significant digits.
    """

    key: str
    header: str
    style: Literal["text", "percent", "scientific"] = "percent"

    def cell(self, row: Row) -> str:
        """Return the row's value in this column as text."""
        value = row.get(self.key)
        if value is None:
            return ABSENT
        match self.style:
            case "text":
                return str(value)
            case "percent":
                return f"{value:.1f}"
            case "scientific":
                return f"{value:.1e}"


# The keys, but for the first, are those of ``metrics.summarize``.
SCORE_COLUMNS = (
    Column("method", "method", "text"),
    Column("Score", "Score"),
    Column("ES", "ES"),
    Column("PS", "PS"),
    Column("NS", "NS"),
    Column("EA", "EA"),
    Column("PA", "PA"),
    Column("NA", "NA"),
    Column("accuracy_score", "AScore"),
    Column("generated_efficacy", "GE"),
    Column("generated_paraphrase", "GP"),
    Column("retention", "RA"),
)

SCORE_LEGEND = (
    "ES, PS, NS: the wanted target is likelier than the other on rewrite, paraphrase "
    "and neighborhood prompts; Score: their harmonic mean. EA, PA, NA: every token of "
    "it is the likeliest; AScore: their harmonic mean. GE, GP: the model generates it. "
    "RA: other facts about the edited subjects are kept. MH, where there are such "
    "questions: what follows from edits is answered in one wording. All in percent."
)

# A table of its own, where free text was written: one of 80 characters is full.
TEXT_COLUMNS = (
    Column("method", "method", "text"),
    Column("fluency", "ENT"),
    Column("consistency", "RS"),
)

TEXT_LEGEND = (
    "ENT: n-gram entropy of free text about the subjects, in hundredths of a bit; low "
    "means repetition. RS: its likeness to reference texts of the new answers, in "
    "percent."
)

GAP_COLUMNS = (
    Column("parameter", "parameter", "text"),
    Column("gap", "relative Frobenius gap", "scientific"),
)


def score_columns(rows: Iterable[Row]) -> tuple[Column, ...]:
    """Return `SCORE_COLUMNS`, and MH where a row has it: few data sets ask for it."""
    multi_hop = Column("MH", "MH")
    return (*SCORE_COLUMNS, *[multi_hop] * _has(list(rows), multi_hop))


def has_texts(rows: Iterable[Row]) -> bool:
    """Return whether free text was written."""
    rows = list(rows)
    return any(_has(rows, column) for column in TEXT_COLUMNS[1:])


def _has(rows: Sequence[Row], column: Column) -> bool:
    return any(row.get(column.key) is not None for row in rows)


def gap_rows(gaps: Mapping[str, float]) -> list[Row]:
    """Return the rows of ``GAP_COLUMNS``, one per parameter name."""
    return [{"parameter": name, "gap": gap} for name, gap in gaps.items()]


def render_markdown(title: str, columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """Return a Markdown section: a heading and a table, ending in a line break."""
    lines = [
        _markdown_line([column.header for column in columns]),
        _markdown_line(["---" if c.style == "text" else "---:" for c in columns]),
        *(_markdown_line([column.cell(row) for column in columns]) for row in rows),
    ]
    return f"## {title}\n\n" + "\n".join(lines) + "\n"


def render_rich(title: str, columns: Sequence[Column], rows: Sequence[Row]) -> Table:
    """Return the same table for a terminal, narrow enough for 80 characters.

    Cells are taken as text, not as markup.
    """
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(
            column.header, justify="left" if column.style == "text" else "right"
        )
    for row in rows:
        table.add_row(*(Text(column.cell(row)) for column in columns))
    return table


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
