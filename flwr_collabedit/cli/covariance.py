"""``collabedit covariance``: the second moments that every edit of a model needs."""

from pathlib import Path
from typing import Annotated

import typer

from flwr_collabedit.cli import options
from flwr_collabedit.cli.terminal import terminal


def covariance(
    model: options.Model,
    corpus: Annotated[
        str,
        typer.Option(
            help="Text to read: a .txt file (a document a line), .json or .jsonl, a "
            "hub id, with its configuration behind a colon, or 'embedded'."
        ),
    ] = "",
    field: Annotated[
        str, typer.Option(help="Its column that holds the text.")
    ] = "text",
    layers: Annotated[
        str,
        typer.Option(
            "--layers",
            "--layer",
            help="Such as 13,14,15,16,17; those of the hyperparameters if empty.",
        ),
    ] = "",
    hyperparameters: options.Hyperparameters = "",
    small: Annotated[
        float,
        typer.Option(
            help="Read this multiple of d_key tokens only, and shrink, such as 10.",
            min=0,
        ),
    ] = 0.0,
    samples: Annotated[
        int,
        typer.Option(
            help="Read this many documents; those of the hyperparameters (100,000 as "
            "published) by default.",
            min=0,
        ),
    ] = 0,
    shrink: Annotated[
        bool | None,
        typer.Option(
            help="Shrink towards a scaled identity; with --small by default.",
            show_default=False,
        ),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Cut documents to so many tokens; 1024.", min=1)
    ] = None,
    batch_size: Annotated[
        int, typer.Option(help="Documents at once; less needs less memory.", min=1)
    ] = 16,
    import_npz: Annotated[
        Path | None,
        typer.Option(
            help="Take the file, or folder of files, that ROME and MEMIT published."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder; by default the one where edits look."),
    ] = None,
    revision: options.Revision = "",
    dtype: options.Dtype = "float32",
    device: options.Device = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Estimate the second moments (covariance) of a model's keys from text.

    Once for a model and its layers, before it is edited. Everybody who edits
    together needs the very same files: one party makes them, all compare the
    SHA-256.

        collabedit covariance gpt2-xl --corpus wikitext:wikitext-103-v1 --small 10

        collabedit covariance gpt2-xl --import-npz stats/gpt2-xl/wikipedia_stats

    An interrupted command goes on where it stopped. Layers that have their file
    are not read again.
    """
    with terminal(as_json) as told:
        from flwr_collabedit.cli.inputs import open_model
        from flwr_collabedit.cli.moments import (
            MomentPlan,
            estimate_files,
            import_files,
            show_files,
        )
        from flwr_collabedit.editors.second_moment_folder import default_folder
        from flwr_collabedit.files import check_writable

        plan = MomentPlan(
            corpus=corpus,
            field=field,
            layers=layers,
            hyperparameters=hyperparameters,
            small=small,
            samples=samples,
            shrink=shrink,
            max_length=max_length,
            batch_size=batch_size,
            import_npz=import_npz,
            out=out,
        )
        plan.check(model)
        check_writable(out or default_folder())
        lm = open_model(told, model, revision=revision, dtype=dtype, device=device)
        if plan.import_npz is None:
            made = estimate_files(told, lm, plan, revision)
        else:
            made = import_files(told, lm, plan, plan.import_npz)
        show_files(told, made)
