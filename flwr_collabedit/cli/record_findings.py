"""What is wrong with the records of a data set: found, counted and shown."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from flwr_collabedit.cli.terminal import Terminal
from flwr_collabedit.data.reading import DataSet, ReadRecord
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.evaluation.record_check import ERRORS, WARNINGS, check_cases
from flwr_collabedit.models.tokenizer_loading import load_tokenizer

SHOWN = 50

Finding = dict[str, Any]
"""``record``, ``line``, ``case_id``, ``severity``, ``kind`` and ``text``."""


def find_problems(
    told: Terminal, data: DataSet, model: str, revision: str
) -> list[Finding]:
    """Return what is wrong with each record, in their order."""
    tokenizer, max_length = load_tokenizer(model, revision=revision)
    owners = [(record, case) for record in data.records for case in record.cases]
    with told.progress("records", len(owners)) as progress:
        problems = check_cases(
            tokenizer, [case for _, case in owners], max_length, progress=progress
        )
    findings = [
        _finding(record, None, "error", "layout", record.error)
        for record in data.records
        if record.error
    ]
    findings += [
        _finding(*owners[problem.index], problem.severity, problem.kind, problem.text)
        for problem in problems
    ]
    return sorted(findings, key=lambda finding: finding["record"])


def _finding(
    record: ReadRecord,
    case: EvaluationCase | None,
    severity: str,
    kind: str,
    text: str,
) -> Finding:
    return {
        "record": record.index,
        "line": record.line,
        "case_id": None if case is None else case.request.case_id,
        "severity": severity,
        "kind": kind,
        "text": text,
    }


def summarize_findings(data: DataSet, findings: list[Finding]) -> dict[str, Any]:
    """Return how many records can be used, and how often each kind was found."""
    unusable = {f["record"] for f in findings if f["severity"] == "error"}
    warned = {f["record"] for f in findings} - unusable
    return {
        "source": data.source,
        "format": data.data_format,
        "records": len(data.records),
        "edits": sum(len(record.cases) for record in data.records),
        "usable": len(data.records) - len(unusable),
        "unusable": len(unusable),
        "with_warnings": len(warned),
        "kinds": dict(Counter(finding["kind"] for finding in findings)),
    }


def shown_findings(
    summary: Mapping[str, Any], findings: list[Finding], model: str
) -> list[Table | str]:
    """Return the findings, what their kinds mean, and the counts, for a reader."""
    parts: list[Table | str] = []
    if findings:
        has_lines = any(finding["line"] is not None for finding in findings)
        rows = plain_table("record", *["line"] * has_lines, "problem", "found")
        for finding in findings[:SHOWN]:
            is_error = finding["severity"] == "error"
            rows.add_row(
                str(finding["record"]),
                *[str(finding["line"])] * has_lines,
                Text(finding["kind"], style="red" if is_error else "yellow"),
                Text(finding["text"]),
            )
        if len(findings) > SHOWN:
            rows.caption = f"{len(findings) - SHOWN} more; --json has all"
        meanings = {**ERRORS, **WARNINGS, "layout": "the record cannot be read"}
        counts = plain_table("problem", "times", "meaning")
        for kind, count in summary["kinds"].items():
            counts.add_row(
                kind,
                str(count),
                meanings[kind],
                style="" if kind in WARNINGS else "red",
            )
        parts += [rows, counts]
    return [
        *parts,
        f"{summary['records']} records ({summary['format']}), {summary['edits']} edits "
        f"for the tokenizer of {model}: {summary['usable']} usable, "
        f"{summary['with_warnings']} of them with warnings, {summary['unusable']} not.",
    ]


def plain_table(*headers: str) -> Table:
    """Return a table without lines."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
    return table
