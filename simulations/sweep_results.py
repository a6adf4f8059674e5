"""The results of a sweep in one tidy table: ``results.csv`` and ``results.parquet``."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from flwr_collabedit.files import replacing
from simulations.cell_process import SUMMARY
from simulations.finished_runs import final_scores
from simulations.sweep_file import Cell, varying_settings

SCORES = (
    *("Score", "accuracy_score", "ES", "PS", "NS", "EA", "PA", "NA"),
    *("retention", "generated_efficacy", "generated_paraphrase"),
)
_FIGURES = ("upload_bytes_per_client", "seconds", "seconds_pooled")

Row = dict[str, str | int | float | bool | None]


def write_results(cells: list[Cell], folder: Path) -> list[Row]:
    """Write one row per finished cell, in the sweep's order, and return the rows.

    Columns: cell, method, every setting that varies over the sweep, the final scores,
    those of the pooled reference (``pooled_...``), ``gap_to_pooled`` (the largest over
    the edited layers), ``upload_bytes_per_client``, ``seconds``, ``seconds_pooled``. A
    cell with nothing in a column has an empty field. Each file is whole or absent.
    """
    varying = varying_settings(cells)
    rows = [
        result_row(cell, varying, json.loads(path.read_text(encoding="utf-8")))
        for cell in cells
        if (path := cell.folder / SUMMARY).exists()
    ]
    columns = ["cell", "method", *varying, *_result_columns()]
    with (
        replacing(folder / "results.csv") as draft,
        draft.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    table = pa.table({name: [row[name] for row in rows] for name in columns})
    with replacing(folder / "results.parquet") as draft:
        parquet.write_table(table, draft)
    return rows


def result_row(cell: Cell, varying: list[str], summary: dict[str, Any]) -> Row:
    """Return a finished cell's row, given its ``summary.json``."""
    settings = cell.settings.to_run_config()
    last = final_scores(summary)
    pooled = summary["scores"].get("pooled", {})
    return {
        "cell": cell.name,
        "method": cell.method,
        **{name: settings[name] for name in varying},
        **{name: last.get(name) for name in SCORES},
        **{f"pooled_{name}": pooled.get(name) for name in SCORES},
        "gap_to_pooled": max(summary["gap_to_pooled"].values(), default=None),
        **{name: summary[name] for name in _FIGURES},
    }


def _result_columns() -> list[str]:
    pooled = [f"pooled_{name}" for name in SCORES]
    return [*SCORES, *pooled, "gap_to_pooled", *_FIGURES]
