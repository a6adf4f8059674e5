"""Run a simulation from its config file: ``python -m simulations.launch CONFIG``.

With the ``ray`` engine this is ``flwr run`` on a local SuperLink of its own, see
`simulations.superlink`.
"""

import json
import os
import subprocess
import tomllib
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flwr_collabedit.errors import CollabEditError, ConfigurationError
from simulations.report import print_report
from simulations.settings import ExperimentSettings
from simulations.superlink import ROOT, local_superlink, script


class Engine(StrEnum):
    """What runs the clients."""

    RAY = "ray"
    IN_PROCESS = "in-process"


def main(
    config: Annotated[Path, typer.Argument(help="A file of simulations/configs.")],
    output: Annotated[
        Path | None, typer.Option(help="Run folder; made under runs/ by default.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE in TOML; replaces the file's setting."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Run folder of an interrupted run, to go on with it."),
    ] = None,
    engine: Annotated[Engine, typer.Option(help="What runs the clients.")] = Engine.RAY,
    cpus: Annotated[int, typer.Option(help="CPU cores for clients.", min=1)] = (
        os.cpu_count() or 1
    ),
    gpus_per_client: Annotated[float, typer.Option(help="GPU share a client.")] = 0.0,
) -> None:
    """Run one simulation and print its report."""
    console = Console()
    try:
        overrides = [*(setting or []), *(["resume = true"] if resume else [])]
        settings = read_settings(config, overrides, resume or output)
        run(settings, engine, cpus=cpus, gpus_per_client=gpus_per_client)
    except CollabEditError as error:
        console.print(f"[red]{type(error).__name__}[/red]: {error}", highlight=False)
        raise typer.Exit(2) from None
    if not (settings.folder / "summary.json").exists():
        console.print("[red]The run did not finish[/red]; its log says why.")
        raise typer.Exit(1)
    print_report(settings.folder, console)


def read_settings(
    config: Path, overrides: list[str], output: Path | None = None
) -> ExperimentSettings:
    """Return a config file's settings with overrides and an absolute run folder."""
    if not config.is_file():
        raise ConfigurationError(f"Expected a config file at '{config}', found none.")
    values = tomllib.loads(config.read_text(encoding="utf-8"))
    for text in overrides:
        try:
            values |= tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(
                f"Expected --set NAME=VALUE in TOML, found {text!r}: {error}. Put "
                "quotes around text."
            ) from None
    if output is not None or not values.get("output-folder"):
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        folder = output or ROOT / "runs" / f"{config.stem}-{stamp}"
        values["output-folder"] = str(folder.resolve())
    return ExperimentSettings.from_run_config(values)


def run(
    settings: ExperimentSettings,
    engine: Engine = Engine.RAY,
    *,
    cpus: int = 2,
    gpus_per_client: float = 0.0,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a simulation to its end; its results are in ``settings.folder``.

    Parameters
    ----------
    settings : ExperimentSettings
        What to run.
    engine : Engine
        What runs the clients.
    cpus, gpus_per_client
        For ``ray``: CPU cores for all clients, and the GPU share of one.
    environment : Mapping, optional
        For ``ray``: that of a running SuperLink, see
        `simulations.superlink.local_superlink`; one is started where it is missing.
    """
    settings.folder.mkdir(parents=True, exist_ok=True)
    (settings.folder / "summary.json").unlink(missing_ok=True)
    if engine is Engine.IN_PROCESS:
        import torch

        from simulations import client_app, server_app
        from simulations.in_process import run_in_process

        # Server and clients are one process here, and sweeps run several: with more
        # threads than cores torch becomes ten times as slow.
        torch.set_num_threads(settings.threads_per_client)
        run_in_process(
            server_app.app,
            client_app.app,
            settings.num_clients,
            settings.to_run_config(),
        )
        return
    config = settings.folder / "run_config.toml"
    # A JSON scalar is a TOML scalar.
    lines = [f"{k} = {json.dumps(v)}\n" for k, v in settings.to_run_config().items()]
    config.write_text("".join(lines), encoding="utf-8")
    federation = (
        f"num-supernodes={settings.num_clients} client-resources-num-cpus=1 "
        f"client-resources-num-gpus={gpus_per_client} init-args-num-cpus={cpus}"
    )
    link = (
        nullcontext(environment)
        if environment is not None
        else local_superlink(settings.folder / "flower")
    )
    with link as environment:
        subprocess.run(
            [
                *(script("flwr"), "run", str(ROOT), "--stream"),
                *("--run-config", str(config), "--federation-config", federation),
            ],
            env=environment,
            cwd=ROOT,
            check=False,
        )


if __name__ == "__main__":
    typer.run(main)
