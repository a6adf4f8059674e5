"""``collabedit locate``: which layers to edit in a model, by causal tracing."""

from pathlib import Path
from typing import Annotated

import typer

from flwr_collabedit.cli import options
from flwr_collabedit.cli.terminal import ExitCode, terminal


def locate(
    model: options.Model,
    facts: Annotated[
        str,
        typer.Option(
            help="Facts that the model may know: ROME's known_1000.json, or any file "
            "or hub id with true answers. Needed for all models but 'embedded'."
        ),
    ] = "",
    data_format: options.DataFormat = "",
    limit: Annotated[
        int, typer.Option(help="Known facts to trace; more give surer layers.", min=2)
    ] = 100,
    most_layers: Annotated[
        int, typer.Option(help="Choose at most this many layers.", min=1)
    ] = 6,
    last_only: Annotated[
        bool,
        typer.Option(
            "--last-only",
            help="Restore at the subject's last token only: enough for the choice, and "
            "several times as fast.",
        ),
    ] = False,
    noise: Annotated[
        float,
        typer.Option(help="Noise, in standard deviations of the subjects' embeddings."),
    ] = 3.0,
    samples: Annotated[int, typer.Option(help="Draws of noise a fact.", min=1)] = 10,
    window: Annotated[
        int,
        typer.Option(
            help="Layers whose MLP or attention is restored at once; 10 of 48 if 0.",
            min=0,
        ),
    ] = 0,
    batch_size: Annotated[int, typer.Option(help="Rows a forward.", min=1)] = 512,
    seed: Annotated[int, typer.Option(help="Of the noise and of drawn facts.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="New folder; runs/locate-TIME by default.")
    ] = None,
    revision: options.Revision = "",
    dtype: options.Dtype = "float32",
    device: options.Device = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Find the layers to edit in a model that has no published ones.

    Noise on the subject makes the model forget the answer; states of the
    undisturbed model are put back one by one. Layers whose MLPs carry the answer
    from the subject's last token are chosen. Writes trace.png, trace.json and
    edit.json, which `collabedit edit --hyperparameters` reads.

        collabedit locate embedded --out runs/embedded

        collabedit locate my-model --facts known_1000.json --dtype bfloat16

    Exit code 1 if no layer stands out: edit.json is not written then.
    """
    with terminal(as_json) as told:
        from flwr_collabedit.cli.locating import LocatePlan, locate_layers
        from flwr_collabedit.locating.trace_settings import TraceSettings

        plan = LocatePlan(
            facts=facts,
            data_format=data_format,
            limit=limit,
            most_layers=most_layers,
            settings=TraceSettings(
                noise=noise,
                num_samples=samples,
                window=window,
                last_only=last_only,
                seed=seed,
                batch_size=batch_size,
            ),
        )
        layers = locate_layers(told, model, revision, dtype, device, plan, out)
        if not layers:
            raise typer.Exit(ExitCode.FOUND_WRONG)
