"""``collabedit data``: look at facts before anything is done with them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from flwr_collabedit.cli.options import AsJson, DataFormat, Limit, Revision
from flwr_collabedit.cli.terminal import ExitCode, Terminal, terminal

if TYPE_CHECKING:
    from flwr_collabedit.data.reading import DataSet

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
ZsreTarget = Annotated[
    str,
    typer.Option(help="'answers' or 'alt': what zsRE records edit towards."),
]


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
    limit: Limit = None,
    zsre_target: ZsreTarget = "answers",
    as_json: AsJson = False,
) -> None:
    """Say which records will not work with a model's tokenizer, and why.

    All problems are found in one go. Ends with 1 if a record cannot be used, with
    0 if all can, warnings or not.

        collabedit data check facts.csv --model openai-community/gpt2-xl
    """
    from flwr_collabedit.cli.record_findings import (
        find_problems,
        shown_findings,
        summarize_findings,
    )

    with terminal(as_json) as told:
        data = _read(told, source, data_format, split, limit, zsre_target)
        findings = find_problems(told, data, model, revision)
        summary = summarize_findings(data, findings)
        told.result(
            {**summary, "model": model, "problems": findings},
            *shown_findings(summary, findings, model),
        )
        if summary["unusable"]:
            raise typer.Exit(ExitCode.FOUND_WRONG)


@app.command()
def formats(as_json: AsJson = False) -> None:
    """List the formats of records, and the data sets that have a short name.

    A format is guessed from the records unless --format names it.

        collabedit data formats
    """
    from flwr_collabedit.cli.record_findings import plain_table
    from flwr_collabedit.data.formats import FORMATS, KNOWN_SOURCES

    with terminal(as_json) as told:
        layouts = plain_table("format", "fields of a record", "of")
        for name, known in FORMATS.items():
            layouts.add_row(name, Text(known.fields), known.origin)
        names = plain_table("short name", "source", "split", "format")
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
    limit: Limit = None,
    zsre_target: ZsreTarget = "answers",
    as_json: AsJson = False,
) -> None:
    """Write the records that can be read in the plain form, one JSON object a line.

    Questions that the plain form has no field for are left out. Ends with 1 if a
    record could not be read.

        collabedit data convert zsre_mend_eval.json facts.jsonl
    """
    from flwr_collabedit.data.plain import to_plain
    from flwr_collabedit.errors import ConfigurationError
    from flwr_collabedit.files import check_writable, replacing

    with terminal(as_json) as told:
        if out.suffix != ".jsonl":
            raise ConfigurationError(f"expected a name in .jsonl, found {str(out)!r}")
        check_writable(out.parent)
        data = _read(told, source, data_format, split, limit, zsre_target)
        cases = [case for record in data.records for case in record.cases]
        with replacing(out) as draft, draft.open("w", encoding="utf-8") as lines:
            for case in cases:
                lines.write(json.dumps(to_plain(case), ensure_ascii=False) + "\n")
        unread = [record for record in data.records if record.error]
        for record in unread:
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
    limit: int | None,
    zsre_target: str,
) -> "DataSet":
    from flwr_collabedit.data.reading import read_data_set

    data = read_data_set(
        source,
        data_format=data_format,
        split=split or None,
        limit=limit,
        zsre_target=zsre_target,  # type: ignore[arg-type]  # checked there
    )
    if data.is_guessed:
        told.note(f"{data.source}: read as {data.data_format!r}")
    return data
