"""``collabedit simulate``: one federated simulation, from its config to its report."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from flwr_collabedit.cli import options
from flwr_collabedit.cli.terminal import ExitCode, terminal
from flwr_collabedit.errors import ConfigurationError
from simulations.engines import Engine

CONFIGS = Path(__file__).parent / "configs"


def simulate(
    config: Annotated[
        str,
        typer.Argument(
            help="A TOML file, or the name of one of simulations/configs: "
            f"{', '.join(sorted(path.stem for path in CONFIGS.glob('*.toml')))}.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--out", help="Run folder; runs/CONFIG-TIME by default."),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE in TOML; replaces the file's setting."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Run folder of an interrupted run, to go on with it."),
    ] = None,
    engine: Annotated[
        Engine,
        typer.Option(help="Flower on Ray (`flwr run`), or all in this process."),
    ] = Engine.RAY,
    cpus: Annotated[int, typer.Option(help="CPU cores for clients.", min=1)] = (
        os.cpu_count() or 1
    ),
    gpus_per_client: Annotated[
        float, typer.Option(help="GPU share of a client.", min=0)
    ] = 0.0,
    as_json: options.AsJson = False,
) -> None:
    """Simulate several parties that edit one model together, and report.

    It is `flwr run` with a SuperLink of its own, on free ports, which ends with
    it.

        collabedit simulate demo

        collabedit simulate my.toml --set 'num-clients = 4' --out runs/four

        collabedit simulate demo --resume runs/four

    The run folder then serves `collabedit ask`, `evaluate`, `export` and
    `report`. Exit code: 0 if the run finished, 1 if not, 2 if a setting is wrong.
    """
    with terminal(as_json) as told:
        from simulations.launch import read_settings, run
        from simulations.report import report_parts
        from simulations.run_folder import CHECKPOINTS

        if resume is not None and output is not None:
            raise ConfigurationError(
                f"Expected either --out or --resume, found '{output}' and '{resume}'. "
                "An interrupted run goes on in its own folder."
            )
        if resume is not None and not (resume / "settings.json").is_file():
            raise ConfigurationError(
                f"Expected the folder of an interrupted run at '{resume}', found no "
                "settings.json. Start a new run there with --out."
            )
        overrides = [*(setting or []), *(["resume = true"] if resume else [])]
        settings = read_settings(config, overrides, resume or output)
        # Flower's processes write their log to standard output.
        run(
            settings,
            engine,
            cpus=cpus,
            gpus_per_client=gpus_per_client,
            log_to_stderr=as_json,
        )
        path = settings.folder / "summary.json"
        if not path.exists():
            text = "The run did not finish; its log says why."
            if any((settings.folder / CHECKPOINTS).glob("*.safetensors")):
                text += (
                    " Its finished rounds are kept: the same command with --resume "
                    f"{settings.folder} goes on after them."
                )
            told.warn(text)
            raise typer.Exit(ExitCode.FOUND_WRONG)
        summary = json.loads(path.read_text(encoding="utf-8"))
        told.result(
            {"folder": str(settings.folder), **summary},
            *report_parts(settings.folder, summary),
        )
