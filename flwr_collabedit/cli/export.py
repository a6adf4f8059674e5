"""``collabedit export``: an edit as files that other programs load."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from flwr_collabedit.cli import options
from flwr_collabedit.cli.terminal import Terminal, terminal
from flwr_collabedit.export.written import Form, WrittenLayer


class Dtype(StrEnum):
    """What exported weights are rounded to."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT64 = "float64"


def export(
    edit: options.Edit,
    out: Annotated[
        Path,
        typer.Argument(
            help="Folder to write; it must not exist yet.", show_default=False
        ),
    ],
    form: Annotated[
        Form,
        typer.Option(
            "--as",
            help="'model': a whole Hugging Face folder. 'lora': an adapter for peft, "
            "some thousandths of that. 'delta': the change alone, in full precision.",
        ),
    ] = Form.MODEL,
    rank: Annotated[
        int | None,
        typer.Option(
            help="Of a LoRA adapter, at most; what that leaves out is told. All that "
            "the edit has if not given.",
            min=1,
        ),
    ] = None,
    dtype: Annotated[
        Dtype | None,
        typer.Option(
            help="Of the exported weights; as they were edited if not given, a LoRA "
            "adapter in float32 at least."
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="The base model's Hugging Face id or folder, if it is elsewhere now."
        ),
    ] = "",
    revision: Annotated[
        str, typer.Option(help="Of the base model, if other than the edit notes.")
    ] = "",
    device: options.Device = "cpu",
    as_json: options.AsJson = False,
) -> None:
    """Make an edit into a model, a LoRA adapter or a delta file.

    EDIT is what `collabedit edit` or `collabedit simulate` wrote; OUT is a
    folder that does not exist yet, and appears whole or not at all, with a
    model card. The base model must be the one that was edited, as is checked.

    A model, an adapter for its base, and a model at half the size:

        collabedit export runs/mine edited

        collabedit export runs/mine adapter --as lora

        collabedit export runs/mine small --as model --dtype bfloat16
    """
    with terminal(as_json) as told:
        import torch

        from flwr_collabedit.export.edit_folder import load_edit
        from flwr_collabedit.export.export_edit import check_options, export_edit
        from flwr_collabedit.files import check_new_folder
        from flwr_collabedit.models.loading import load_language_model

        check_options(form, dtype=dtype, max_rank=rank)
        check_new_folder(out)
        deltas, card = load_edit(edit)
        base = model or card.model
        told.note(f"Loading {base}")
        lm = load_language_model(
            base,
            revision=revision or ("" if model else card.revision),
            dtype=card.dtype,
            device=device,
        )
        with told.progress("layers", len(deltas)) as update:
            layers = export_edit(
                lm,
                deltas,
                card,
                out,
                form,
                dtype=None if dtype is None else getattr(torch, dtype),
                max_rank=rank,
                progress=update,
            )
        _show(told, out, form, layers)


def _show(
    told: Terminal, out: Path, form: Form, layers: Sequence[WrittenLayer]
) -> None:
    files = {one.name: one.stat().st_size for one in sorted(out.iterdir())}
    shown = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("weight", "change", *["rank"] * (form is Form.LORA), "error"):
        shown.add_column(name)
    for layer in layers:
        rank = [] if layer.rank is None else [str(layer.rank)]
        change, error = f"{layer.relative_norm:.2%}", f"{layer.relative_error:.1e}"
        shown.add_row(*map(Text, (layer.name, change, *rank, error)))
    sizes = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name, num_bytes in files.items():
        sizes.add_row(Text(name), Text(f"{num_bytes:,} bytes"))
    value = {
        "folder": str(out),
        "form": form.value,
        "files": files,
        "bytes": sum(files.values()),
        "layers": [vars(layer) for layer in layers],
    }
    told.result(
        value,
        shown,
        "[dim]change: norm relative to the weight's; error: what this form lost of "
        "the change.[/dim]",
        sizes,
        Text(f"{value['bytes']:,} bytes in {out}; README.md tells how to load it."),
    )
