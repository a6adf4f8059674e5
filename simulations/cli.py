"""The command ``collabedit``: the library's commands, and those of simulations.

It lives here and not in the library, since the library must not know simulations.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flwr_collabedit.cli import options
from flwr_collabedit.cli.ask import ask
from flwr_collabedit.cli.covariance import covariance
from flwr_collabedit.cli.data import app as data_app
from flwr_collabedit.cli.edit import edit
from flwr_collabedit.cli.evaluate import evaluate
from flwr_collabedit.cli.export import export
from flwr_collabedit.cli.locate import locate
from flwr_collabedit.cli.terminal import ExitCode, terminal
from flwr_collabedit.cli.train_editor import train_editor
from flwr_collabedit.errors import ConfigurationError
from simulations.engines import Engine
from simulations.simulate import simulate

app = typer.Typer(
    help="Edit facts in a language model, alone or together with others.",
    epilog="Exit codes: 0 done; 1 done, but something is wrong; 2 a setting, file or "
    "model that cannot be used; 3 memory or disk exhausted; 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
_ALONE, _BEFORE, _TOGETHER = "Edit a model", "Before editing", "Simulate parties"
_COMMANDS: tuple[tuple[str, Callable[..., None]], ...] = (
    *((_ALONE, command) for command in (edit, ask, evaluate, export)),
    *((_BEFORE, command) for command in (locate, covariance, train_editor)),
    (_TOGETHER, simulate),
)
for panel, command in _COMMANDS:
    app.command(rich_help_panel=panel)(command)
app.add_typer(data_app, name="data", rich_help_panel=_BEFORE)

_CORES = os.cpu_count() or 1


@app.command("sweep", rich_help_panel=_TOGETHER)
def sweep_command(
    file: Annotated[Path, typer.Argument(help="A sweep file in TOML.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The sweep's folder, runs/NAME by default; an unfinished one goes on."
        ),
    ] = None,
    engine: Annotated[
        Engine,
        typer.Option(
            help="What runs the clients: one process a cell, several cells side by "
            "side, or Flower's simulation on Ray, one cell after another, which shares "
            "GPUs and takes some 20 s longer to start each."
        ),
    ] = Engine.IN_PROCESS,
    jobs: Annotated[
        int, typer.Option(help="Cells side by side, with in-process only.", min=1)
    ] = _CORES,
    cpus: Annotated[
        int, typer.Option(help="CPU cores for a cell's clients, with ray only.", min=1)
    ] = _CORES,
    gpus_per_client: Annotated[
        float, typer.Option(help="GPU share of a client, with ray only.", min=0)
    ] = 0.0,
    as_json: options.AsJson = False,
) -> None:
    """Run every simulation of a grid that is not finished yet.

    Results, one row a cell, go to results.csv and results.parquet. A failed cell
    leaves error.txt and run.log in its folder and does not stop the others;
    finished cells are kept, and the same command goes on.

        collabedit sweep simulations/sweeps/merging_methods.toml

    Exit code: 0 if every cell is finished, 1 if one failed, 2 if the file or
    folder is wrong, 130 after Ctrl-C.
    """
    out = out or Path("runs") / file.stem
    with terminal(as_json) as told, _terminated_as_interrupted():
        from simulations.sweep import sweep

        failed = sweep(
            file,
            out,
            engine=engine,
            jobs=jobs,
            cpus=cpus,
            gpus_per_client=gpus_per_client,
            console=Console(stderr=as_json),
        )
        results = out / "results.csv"
        text = f"Results: {results}"
        if failed:
            told.warn(
                f"{failed} cells failed; their error.txt in {out / 'cells'} says why. "
                "The same command tries them again."
            )
        told.result({"results": str(results), "failed": failed}, text)
        if failed:
            raise typer.Exit(ExitCode.FOUND_WRONG)


@app.command("report", rich_help_panel=_TOGETHER)
def report_command(
    runs: Annotated[list[Path], typer.Argument(help="Run and sweep folders.")],
    out: Annotated[
        Path | None, typer.Option(help="Where it goes; beside the runs by default.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare finished runs of one model: report.html and report.md.

    Tables give the mean and 95 % interval over seeds; plots are drawn for
    whatever the runs vary in. The page holds its figures and needs no other file.

        collabedit report runs/merging_methods
    """
    with terminal(as_json) as told:
        try:
            from simulations.comparison_page import write_comparison
        except ImportError as error:
            raise ConfigurationError(str(error)) from error
        page = write_comparison(runs, out)
        told.result({"report": str(page)}, f"Report: {page}")


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Treat the end of the terminal or of the job as Ctrl-C: processes are ended."""
    signs = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(sign, signal.default_int_handler) for sign in signs]
    try:
        yield
    finally:
        for sign, handler in zip(signs, before, strict=True):
            signal.signal(sign, handler)


if __name__ == "__main__":
    app()
