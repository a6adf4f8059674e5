"""A sweep: every cell of a grid is a simulation; what is finished stays finished."""

import json
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from rich.console import Console
from rich.live import Live

from flwr_collabedit.files import check_writable
from simulations.cell_process import (
    SUMMARY,
    RunFunction,
    cell_processes,
    conclude_cell,
    end_cell,
    start_cell,
)
from simulations.engines import Engine
from simulations.finished_runs import METHOD_FILE
from simulations.hypernetwork_files import check_file
from simulations.launch import run
from simulations.superlink import local_superlink
from simulations.sweep_file import Cell, read_sweep, same_experiment
from simulations.sweep_progress import Progress, State
from simulations.sweep_results import write_results

Listener = Callable[[Cell, State], None]


def sweep(
    file: Path,
    output: Path,
    *,
    engine: Engine = Engine.RAY,
    jobs: int = 1,
    cpus: int = 2,
    gpus_per_client: float = 0.0,
    console: Console | None = None,
) -> int:
    """Run the cells of a sweep file that are not finished; return how many failed.

    Parameters
    ----------
    file, output : Path
        The sweep file and the sweep's folder.
    engine : Engine
        With ``ray``, all cells use one local SuperLink, one after another; with
        ``in-process``, ``jobs`` cells run side by side.
    jobs : int
        Cells at a time, for ``in-process``.
    cpus, gpus_per_client
        For the clients of a cell on Ray.
    console : Console, optional
        Where progress is shown.

    Raises
    ------
    ConfigurationError
        If the file is wrong or the folder cannot be written to, before any work.
    HypernetworkError
        If a cell that is not finished lacks the network that it edits with.
    """
    cells = read_sweep(file, output)
    for cell in cells:
        if not is_finished(cell):
            check_file(cell.settings)
    check_writable(output)
    output.mkdir(parents=True, exist_ok=True)
    console = console or Console()
    progress = Progress(cells, console)
    at_once = jobs if engine is Engine.IN_PROCESS else 1
    context = cell_processes(preload=engine is Engine.IN_PROCESS)
    try:
        with (
            _environment(engine, output, cells) as environment,
            Live(progress, console=console, refresh_per_second=1),
        ):
            run_cell = partial(
                run,
                engine=engine,
                cpus=cpus,
                gpus_per_client=gpus_per_client,
                environment=environment,
            )
            run_cells(cells, run_cell, context, jobs=at_once, notify=progress.set)
    finally:
        write_results(cells, output)
    return progress.count(State.FAILED)


def run_cells(
    cells: list[Cell],
    run: RunFunction,
    context: ForkServerContext,
    *,
    jobs: int,
    notify: Listener,
) -> None:
    """Run the cells that are not finished, at most ``jobs`` at a time.

    A cell that fails leaves its reason in ``error.txt``. When this is interrupted, the
    cells that run are ended with everything that they started; finished ones stay.
    """
    waiting = deque(_unfinished(cells, notify))
    running: dict[int, tuple[Cell, ForkServerProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.popleft()
                process = start_cell(context, run, cell.settings)
                _name_method(cell)
                running[process.sentinel] = cell, process
                notify(cell, State.RUNNING)
            for sentinel in wait(list(running)):
                if not isinstance(sentinel, int):
                    continue
                cell, process = running.pop(sentinel)
                succeeded = conclude_cell(process, cell.folder)
                notify(cell, State.FINISHED if succeeded else State.FAILED)
    finally:
        for _, process in running.values():
            end_cell(process)


def is_finished(cell: Cell) -> bool:
    """Whether the cell's folder holds the results of just these settings."""
    path = cell.folder / SUMMARY
    if not path.exists():
        return False
    found = json.loads(path.read_text(encoding="utf-8"))["settings"]
    return same_experiment(found, cell.settings.to_run_config())


def _unfinished(cells: list[Cell], notify: Listener) -> Iterator[Cell]:
    for cell in cells:
        if is_finished(cell):
            notify(cell, State.SKIPPED)
        else:
            yield cell


def _name_method(cell: Cell) -> None:
    """Leave the method's name beside the results, for reports."""
    text = json.dumps({"method": cell.method}) + "\n"
    (cell.folder / METHOD_FILE).write_text(text, encoding="utf-8")


@contextmanager
def _environment(
    engine: Engine, output: Path, cells: list[Cell]
) -> Iterator[dict[str, str] | None]:
    """Start the SuperLink that the cells share, where any cell needs it."""
    needed = engine is Engine.RAY and not all(map(is_finished, cells))
    link = local_superlink(output / "flower") if needed else nullcontext(None)
    with link as environment:
        yield None if environment is None else dict(environment)
