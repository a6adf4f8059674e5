"""``collabedit train-editor``: the network that MALMEN or MEND edits a model with."""

from pathlib import Path
from typing import Annotated

import typer

from flwr_collabedit.cli import options
from flwr_collabedit.cli.terminal import terminal
from flwr_collabedit.editor_names import EditorName


def train_editor(
    model: options.Model,
    out: Annotated[
        Path, typer.Option(help="File to write, such as malmen.safetensors.")
    ],
    editor: Annotated[
        EditorName, typer.Option(help="Whose network: malmen or mend.")
    ] = "malmen",
    data: Annotated[
        str,
        typer.Option(
            help="Training facts with paraphrases and neighborhood, as for `collabedit "
            "edit`; a tenth of their subjects is held out. Needed for all models but "
            "'embedded'."
        ),
    ] = "",
    data_format: options.DataFormat = "",
    limit: options.Limit = None,
    layers: Annotated[
        str,
        typer.Option(
            help="Such as 22,23,24; what is published for the model if empty."
        ),
    ] = "",
    steps: Annotated[int, typer.Option(help="Of training.", min=1)] = 600,
    batch: Annotated[
        int,
        typer.Option(
            help="Facts that are edited together, at most; each step draws how many.",
            min=1,
        ),
    ] = 1024,
    asked: Annotated[
        int,
        typer.Option(help="Of these, how many are asked about afterwards.", min=1),
    ] = 32,
    rank: Annotated[
        int, typer.Option(help="Of the network; 1920 as published.", min=1)
    ] = 64,
    initial_rate: Annotated[
        float, typer.Option(help="Editing rate that training begins with.")
    ] = 8e-3,
    learning_rate: Annotated[
        float, typer.Option(help="Of training; 1e-5 as published.")
    ] = 1e-3,
    reduction: Annotated[
        str,
        typer.Option(
            help="Of an edit's loss: 'sum', where what clients measure adds up to what "
            "one party would, or 'mean' over a batch as published."
        ),
    ] = "sum",
    tokens: Annotated[
        str,
        typer.Option(
            help="That the network reads: 'answer' (published for MALMEN), 'subject', "
            "its last one, or 'all' of a text (published for MEND)."
        ),
    ] = "answer",
    seed: Annotated[int, typer.Option(help="Of the network and the batches.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a training was interrupted.")
    ] = False,
    held_out: Annotated[
        int, typer.Option(help="Held-out facts to edit and score at the end.", min=0)
    ] = 100,
    revision: options.Revision = "",
    dtype: options.Dtype = "float32",
    device: options.Device = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Train the network that turns an edit's gradients into the edit (MALMEN, MEND).

    Once for a model and its layers. Everybody who edits together needs the very
    same file: one party trains it, all compare the fingerprint.

        collabedit train-editor embedded --out malmen.safetensors

        collabedit train-editor gpt2-xl --data zsre.json --out xl.safetensors

    The training is kept in OUT.unfinished every half minute. At the end facts of
    subjects that it has not seen are edited together and scored.
    """
    with terminal(as_json) as told:
        from flwr_collabedit.cli.editor_training import TrainingPlan, train

        plan = TrainingPlan(
            editor=editor,
            out=out,
            data=data,
            data_format=data_format,
            limit=limit,
            layers=layers,
            network={
                "rank": rank,
                "initial_rate": initial_rate,
                "reduction": reduction,
                "tokens": tokens,
            },
            training={
                "num_steps": steps,
                "edits_per_step": batch,
                "asked_per_step": asked,
                "learning_rate": learning_rate,
                "seed": seed,
            },
            resume=resume,
            held_out=held_out,
        )
        train(told, model, revision, dtype, device, plan)
