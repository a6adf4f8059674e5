"""Arguments and options that several commands have, worded once."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Argument(
        help="'embedded', a Hugging Face id or the folder of a saved model.",
        show_default=False,
    ),
]
Revision = Annotated[
    str,
    typer.Option(help="Commit, tag or branch of a hub model; its default if empty."),
]
Dtype = Annotated[
    str, typer.Option(help="Weights in float32, bfloat16, float16 or float64.")
]
EditDtype = Annotated[
    str, typer.Option("--dtype", help="As for `collabedit edit`; the edit's if empty.")
]
Device = Annotated[
    str,
    typer.Option(
        help="'auto' (a GPU where there is one), 'cpu', 'cuda', 'cuda:1', or "
        "'balanced': over all GPUs, the rest on the CPU."
    ),
]
Edit = Annotated[
    Path,
    typer.Argument(
        help="Folder that `collabedit edit` or `collabedit simulate` wrote.",
        show_default=False,
    ),
]
ChatTemplate = Annotated[
    bool,
    typer.Option(help="Put prompts into the chat template of an instruct model."),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object instead of text."),
]
Hyperparameters = Annotated[
    str,
    typer.Option(
        help="A published set's name, such as 'gpt2-xl', or a JSON file; what is "
        "published for the model if empty."
    ),
]
CovarianceFolder = Annotated[
    Path | None,
    typer.Option(
        "--covariance",
        help="Folder of second moments; that of `collabedit covariance` by default.",
    ),
]
Limit = Annotated[int | None, typer.Option(help="Take the first records only.", min=1)]
DataFormat = Annotated[
    str, typer.Option("--format", help="Layout of the records; guessed if empty.")
]
