"""``collabedit edit``: one party edits one model in one process."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from flwr_collabedit.algebra.schedule import LayerSchedule
from flwr_collabedit.cli import options
from flwr_collabedit.cli.terminal import terminal
from flwr_collabedit.editor_names import EditorName


def edit(
    model: options.Model,
    facts: Annotated[
        str,
        typer.Argument(
            help="CSV, JSON or JSON lines with subject, prompt and target_new, a file "
            "in a published layout, or a hub id; see `collabedit data formats`.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the edit; runs/edit-TIME by default.")
    ] = None,
    data_format: options.DataFormat = "",
    limit: options.Limit = None,
    editor: Annotated[EditorName, typer.Option(help="Who writes.")] = "memit",
    hyperparameters: options.Hyperparameters = "",
    covariance: options.CovarianceFolder = None,
    sweeps: Annotated[
        int,
        typer.Option(
            help="Passes over the layers; 1 is canonical MEMIT, more leave less of "
            "the residual and cost no gradient step.",
            min=1,
        ),
    ] = 1,
    layer_schedule: Annotated[
        LayerSchedule | None,
        typer.Option(
            help="Of MEMIT, PMET and AlphaEdit: synchronous is canonical; local is "
            "for federations.",
            show_default=False,
        ),
    ] = None,
    hypernetwork: Annotated[
        Path | None,
        typer.Option(help="What `train-editor` wrote, for MALMEN and MEND."),
    ] = None,
    after: Annotated[
        Path | None,
        typer.Option(help="An earlier edit of the same model, to go on from."),
    ] = None,
    chat_template: options.ChatTemplate = False,
    score: Annotated[
        bool, typer.Option(help="Score the model before and after, on the same facts.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Of the context templates.")] = 0,
    revision: options.Revision = "",
    dtype: options.Dtype = "float32",
    device: options.Device = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Write facts into a model, alone.

    The base model is not changed: the result is a delta of a few matrices, which
    `collabedit ask`, `evaluate` and `export` read.

        collabedit edit embedded facts.csv --out runs/mine

        collabedit ask runs/mine "The capital of France is"

        collabedit export runs/mine my-model --as model
    """
    with terminal(as_json) as told:
        from flwr_collabedit.cli.editing import EditPlan, edit_alone

        plan = EditPlan(
            facts=facts,
            data_format=data_format,
            limit=limit,
            editor=editor,
            hyperparameters=hyperparameters,
            covariance=covariance,
            sweeps=sweeps,
            layer_schedule=layer_schedule,
            hypernetwork=hypernetwork,
            after=after,
            chat_template=chat_template,
            score=score,
            seed=seed,
        )
        folder = out or Path("runs") / f"edit-{datetime.now():%Y%m%d-%H%M%S}"
        edit_alone(told, model, revision, dtype, device, plan, folder)
