"""The command ``collabedit``: run one simulation, a sweep of them, compare the results.

It lives here and not in the library, since the library must not know simulations.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flwr_collabedit.errors import CollabEditError, ConfigurationError
from simulations import launch

app = typer.Typer(
    help="Federated editing of facts in language models: simulate, sweep, compare.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.command("run")(launch.main)

_INTERRUPTED = 130
_CORES = os.cpu_count() or 1


@app.command("sweep")
def sweep_command(
    file: Annotated[Path, typer.Argument()],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The sweep's folder, runs/NAME by default; an unfinished one goes on."
        ),
    ] = None,
    engine: Annotated[
        launch.Engine,
        typer.Option(
            help="What runs the clients: one process a cell, several cells side by "
            "side, or Flower's simulation on Ray, one cell after another, which shares "
            "GPUs and takes some 20 s longer to start each."
        ),
    ] = launch.Engine.IN_PROCESS,
    jobs: Annotated[
        int, typer.Option(help="Cells side by side, with in-process only.", min=1)
    ] = _CORES,
    cpus: Annotated[
        int, typer.Option(help="CPU cores for a cell's clients, with ray only.", min=1)
    ] = _CORES,
    gpus_per_client: Annotated[
        float, typer.Option(help="GPU share of a client, with ray only.", min=0)
    ] = 0.0,
) -> None:
    """Run every simulation of a grid that is not finished yet.

    FILE is a sweep file in TOML, such as those of simulations/sweeps. Results, one row
    a cell, go to results.csv and results.parquet. A failed cell leaves error.txt and
    run.log in its folder and does not stop the others. Exit code: 0 if every cell is
    finished, 1 if one failed, 2 if the file or folder is wrong, 130 after Ctrl-C.
    """
    from simulations.sweep import sweep

    console = Console()
    out = out or Path("runs") / file.stem
    with _told(console), _terminated_as_interrupted():
        failed = sweep(
            file,
            out,
            engine=engine,
            jobs=jobs,
            cpus=cpus,
            gpus_per_client=gpus_per_client,
            console=console,
        )
    console.print(f"Results: {out / 'results.csv'}", soft_wrap=True)
    if failed:
        console.print(
            f"[red]{failed} cells failed[/red]; their error.txt in {out / 'cells'} "
            "says why. The same command tries them again.",
            soft_wrap=True,
        )
        raise typer.Exit(1)


@app.command("report")
def report_command(
    runs: Annotated[list[Path], typer.Argument()],
    out: Annotated[
        Path | None, typer.Option(help="Where it goes; beside the runs by default.")
    ] = None,
) -> None:
    """Compare finished runs of one model: report.html and report.md.

    RUNS are run folders and sweep folders, any number. Tables give the mean and 95 %
    interval over seeds; plots are drawn for whatever the runs vary in. The page holds
    its figures and needs no other file.
    """
    console = Console()
    with _told(console):
        try:
            from simulations.comparison_page import write_comparison
        except ImportError as error:
            raise ConfigurationError(str(error)) from error
        page = write_comparison(runs, out)
        console.print(f"Report: {page}", soft_wrap=True)


@contextmanager
def _told(console: Console) -> Iterator[None]:
    """Tell errors that are raised on purpose in one line, and an interrupt too."""
    try:
        yield
    except CollabEditError as error:
        console.print(
            f"[red]{type(error).__name__}[/red]: {error}", highlight=False, markup=True
        )
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        console.print("Interrupted. Finished cells are kept; the same command goes on.")
        raise typer.Exit(_INTERRUPTED) from None


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
