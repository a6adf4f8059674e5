"""Tables are pinned as text: the same rows for a terminal and for Markdown."""

import io

from rich.console import Console

from flwr_collabedit.evaluation.metrics import MetricSums, summarize
from flwr_collabedit.evaluation.report import (
    GAP_COLUMNS,
    SCORE_COLUMNS,
    Column,
    gap_rows,
    render_markdown,
    render_rich,
    score_columns,
)

COLUMNS = (Column("method", "method", "text"), Column("Score", "Score"))
ROWS = [{"method": "before", "Score": 0.04}, {"method": "[b]a|b[/b]", "Score": None}]


def shown(table) -> str:
    console = Console(file=io.StringIO(), width=200, color_system=None)
    console.print(table)
    return console.file.getvalue()


def test_markdown_table_is_as_pinned():
    assert render_markdown("Scores", COLUMNS, ROWS) == (
        "## Scores\n"
        "\n"
        "| method | Score |\n"
        "| --- | ---: |\n"
        "| before | 0.0 |\n"
        "| [b]a\\|b[/b] | \u2013 |\n"
    )


def test_terminal_table_shows_the_same_cells_and_takes_no_markup():
    lines = shown(render_rich("Scores", COLUMNS, ROWS)).splitlines()

    assert lines[0].strip() == "Scores"
    assert lines[2].split()[:2] == ["before", "0.0"]
    assert lines[3].split()[:2] == ["[b]a|b[/b]", "\u2013"]


def test_the_score_table_fits_a_terminal_of_80_characters():
    row = {column.key: 100.0 for column in SCORE_COLUMNS} | {"method": "CollabEdit"}

    lines = shown(render_rich("Scores", SCORE_COLUMNS, [row])).splitlines()

    assert lines[2].split() == ["CollabEdit"] + ["100.0"] * (len(SCORE_COLUMNS) - 1)
    assert max(len(line.rstrip()) for line in lines) <= 80


def test_score_columns_show_what_the_sums_are_summarized_to():
    sums = MetricSums.of(
        {
            "efficacy-success": 1.0,
            "paraphrase-success": 0.5,
            "neighborhood-success": 0.25,
            "efficacy-accuracy": 0.9,
            "paraphrase-accuracy": 0.8,
            "neighborhood-accuracy": 0.7,
            "generated-efficacy": 0.6,
            "generated-paraphrase": 0.55,
        }
    )

    row = {"method": "CollabEdit", **summarize(sums)}

    # Score 3/7; accuracy Score 3 / (1/0.9 + 1/0.8 + 1/0.7) = 0.79162
    assert " ".join(column.cell(row) for column in SCORE_COLUMNS) == (
        "CollabEdit 42.9 100.0 50.0 25.0 90.0 80.0 70.0 79.2 60.0 55.0 \u2013"
    )


def test_multi_hop_is_shown_only_where_it_was_asked():
    rows = [{"method": "before", "MH": None}, {"method": "after", "ES": 1.0}]

    assert score_columns(rows) == SCORE_COLUMNS
    assert [c.key for c in score_columns([*rows, {"MH": 0.0}])[-2:]] == [
        *("retention", "MH")
    ]


def test_gaps_are_in_scientific_notation():
    rows = gap_rows({"transformer.h.3.mlp.c_proj.weight": 0.0000123})

    assert render_markdown("Gap", GAP_COLUMNS, rows).splitlines()[-1] == (
        "| transformer.h.3.mlp.c_proj.weight | 1.2e-05 |"
    )
