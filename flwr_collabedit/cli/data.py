"""``collabedit data``: look at facts before anything is done with them."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from flwr_collabedit.cli.options import AsJson, DataFormat, Revision
from flwr_collabedit.cli.terminal import ExitCode, Terminal, terminal

if TYPE_CHECKING:
    from flwr_collabedit.data.reading import DataSet, ReadRecord
    from flwr_collabedit.data.requests import EvaluationCase

SHOWN = 50

app = typer.Typer(
    no_args_is_help=True, help="Check and convert facts; list the known formats."
)
Source = Annotated[
    str,
    typer.Argument(
        help="A .csv, .tsv, .json or .jsonl file, a Hugging Face id, or a short name "
        "of `collabedit data formats`.",
        show_default=False,
    ),
]
Split = Annotated[str, typer.Option(help="Of a hub data set that has several.")]
Limit = Annotated[
    int, typer.Option(min=0, help="Read the first records only; 0 reads all.")
]
ZsreTarget = Annotated[
    str,
    typer.Option(help="'answers' or 'alt': what zsRE records edit towards."),
]
Finding = dict[str, Any]


@app.command()
def check(
    source: Source,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "--tokenizer",
            help="Whose tokenizer: 'embedded', a Hugging Face id or a folder. No "
            "weights are loaded.",
        ),
    ] = "embedded",
    revision: Revision = "",
    data_format: DataFormat = "",
    split: Split = "",
    limit: Limit = 0,
    zsre_target: ZsreTarget = "answers",
    as_json: AsJson = False,
) -> None:
    """Say which records will not work with a model's tokenizer, and why.

    All problems are found in one go. Ends with 1 if a record cannot be used, with 0 if
    all can, warnings or not.

    Example: collabedit data check facts.csv --model openai-community/gpt2-xl
    """
    with terminal(as_json) as told:
        data = _read(told, source, data_format, split, limit, zsre_target)
        findings = _findings(told, data, model, revision)
        summary = _summary(data, findings)
        told.result(
            {**summary, "model": model, "problems": findings},
            *_shown(summary, findings, model),
        )
        if summary["unusable"]:
            raise typer.Exit(ExitCode.FOUND_WRONG)


@app.command()
def formats(as_json: AsJson = False) -> None:
    """List the formats of records, and the data sets that have a short name.

    Example: collabedit data formats
    """
    from flwr_collabedit.data.formats import FORMATS, KNOWN_SOURCES

    with terminal(as_json) as told:
        layouts = _table("format", "fields of a record", "of")
        for name, known in FORMATS.items():
            layouts.add_row(name, Text(known.fields), known.origin)
        names = _table("short name", "source", "split", "format")
        for name, at in KNOWN_SOURCES.items():
            names.add_row(name, at.source, at.split or "", at.data_format)
        told.result(
            {
                "formats": {
                    name: {"fields": known.fields, "of": known.origin}
                    for name, known in FORMATS.items()
                },
                "sources": {name: vars(at) for name, at in KNOWN_SOURCES.items()},
            },
            layouts,
            names,
        )


@app.command()
def convert(
    source: Source,
    out: Annotated[Path, typer.Argument(help="A .jsonl file.", show_default=False)],
    data_format: DataFormat = "",
    split: Split = "",
    limit: Limit = 0,
    zsre_target: ZsreTarget = "answers",
    as_json: AsJson = False,
) -> None:
    """Write the records that can be read in the plain form, one JSON object a line.

    Questions that the plain form has no field for are left out. Ends with 1 if a record
    could not be read.

    Example: collabedit data convert zsre_mend_eval.json facts.jsonl
    """
    from flwr_collabedit.data.plain import to_plain
    from flwr_collabedit.errors import ConfigurationError
    from flwr_collabedit.files import replacing

    with terminal(as_json) as told:
        if out.suffix != ".jsonl":
            raise ConfigurationError(f"expected a name in .jsonl, found {str(out)!r}")
        data = _read(told, source, data_format, split, limit, zsre_target)
        cases = [case for record in data.records for case in record.cases]
        with replacing(out) as draft, draft.open("w", encoding="utf-8") as lines:
            for case in cases:
                lines.write(json.dumps(to_plain(case), ensure_ascii=False) + "\n")
        unread = [record for record in data.records if record.error]
        for record in unread[:SHOWN]:
            told.warn(f"{record.place}: {record.error}")
        told.result(
            {"written": len(cases), "unread": len(unread), "out": str(out)},
            f"{len(cases)} edits written to {out}, {len(unread)} records left out",
        )
        if unread:
            raise typer.Exit(ExitCode.FOUND_WRONG)


def _read(
    told: Terminal,
    source: str,
    data_format: str,
    split: str,
    limit: int,
    zsre_target: str,
) -> "DataSet":
    from flwr_collabedit.data.reading import read_data_set

    data = read_data_set(
        source,
        data_format=data_format,
        split=split or None,
        limit=limit or None,
        zsre_target=zsre_target,  # type: ignore[arg-type]  # checked there
    )
    if data.is_guessed:
        told.note(f"{data.source}: read as {data.data_format!r}")
    return data


def _findings(
    told: Terminal, data: "DataSet", model: str, revision: str
) -> list[Finding]:
    """Return what is wrong with each record, in their order."""
    from flwr_collabedit.evaluation.record_check import check_cases
    from flwr_collabedit.models.tokenizer_loading import (
        load_tokenizer,
    )

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
    record: "ReadRecord",
    case: "EvaluationCase | None",
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


def _summary(data: "DataSet", findings: list[Finding]) -> dict[str, Any]:
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


def _shown(
    summary: Mapping[str, Any], findings: list[Finding], model: str
) -> list[Table | str]:
    from flwr_collabedit.evaluation.record_check import (
        ERRORS,
        WARNINGS,
    )

    parts: list[Table | str] = []
    if findings:
        has_lines = any(finding["line"] is not None for finding in findings)
        rows = _table("record", *["line"] * has_lines, "problem", "found")
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
        counts = _table("problem", "times", "meaning")
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


def _table(*headers: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
    return table
