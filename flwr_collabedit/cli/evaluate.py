"""``collabedit evaluate``: the scores of an edit, or of a model, on any facts."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from flwr_collabedit.cli import options
from flwr_collabedit.cli.terminal import terminal


def evaluate(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="EDIT_OR_MODEL",
            help="Folder of an edit; or 'embedded', a Hugging Face id or a model's "
            "folder.",
            show_default=False,
        ),
    ],
    facts: Annotated[
        str,
        typer.Argument(
            help="What to score, as for `collabedit edit`.", show_default=False
        ),
    ],
    data_format: options.DataFormat = "",
    limit: options.Limit = None,
    base: Annotated[
        bool, typer.Option(help="Score the model before the edit, too.")
    ] = True,
    cases_to: Annotated[
        Path | None,
        typer.Option(
            help="JSON lines with every prompt's values, of the edited model.",
            dir_okay=False,
        ),
    ] = None,
    chat_template: options.ChatTemplate = False,
    revision: options.Revision = "",
    dtype: options.EditDtype = "",
    device: options.Device = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Score an edit on facts, its own or others; or a model without one.

    With others it says what the edit did to facts that it was not to change.

        collabedit evaluate runs/mine facts.csv

        collabedit evaluate runs/mine multi_counterfact.json --limit 200 --json
    """
    with terminal(as_json) as told:
        from flwr_collabedit.cli.inputs import (
            open_cases,
            open_edit,
            open_model,
            scored,
        )
        from flwr_collabedit.cli.tables import score_table
        from flwr_collabedit.export.edit_folder import SavedEdit, is_edit
        from flwr_collabedit.files import check_writable, replacing

        if cases_to is not None:
            check_writable(cases_to.parent)
        saved: SavedEdit | None = None
        if is_edit(Path(subject)):
            lm, saved = open_edit(told, Path(subject), dtype=dtype, device=device)
            chat_template |= saved.card.chat_template
        else:
            lm = open_model(
                told,
                subject,
                revision=revision,
                dtype=dtype or "float32",
                device=device,
            )
        cases = open_cases(
            lm,
            facts,
            data_format=data_format,
            limit=limit,
            chat_template=chat_template,
        )
        scores = {}
        if saved and base:
            scores["base"], _ = scored(told, lm, cases, "the base model")
        name = "edited" if saved else "model"
        with saved.applied(lm) if saved else nullcontext():
            scores[name], lines = scored(told, lm, cases, f"the {name} model")
        if cases_to is not None:
            with replacing(cases_to) as draft:
                draft.write_text(lines, encoding="utf-8")
        told.result({"cases": len(cases), "scores": scores}, *score_table(scores))
