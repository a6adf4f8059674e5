"""Tables that several commands show."""

from collections.abc import Mapping

from rich.console import RenderableType
from rich.text import Text

from flwr_collabedit.evaluation.report import (
    SCORE_LEGEND,
    Row,
    render_rich,
    score_columns,
)


def score_table(scores: Mapping[str, Mapping[str, float]]) -> list[RenderableType]:
    """Return the scores' table and its legend; nothing where nothing was scored.

    Columns that no method has a value for are left out.
    """
    if not scores:
        return []
    rows: list[Row] = [
        {**values, "method": method} for method, values in scores.items()
    ]
    columns = [
        column
        for column in score_columns(rows)
        if any(row.get(column.key) is not None for row in rows)
    ]
    return [render_rich("Scores", columns, rows), Text(SCORE_LEGEND, style="dim")]
