"""One cell of a sweep in a process of its own, so that it can fail or be ended alone.

The processes are forked from a server that has imported torch and Flower once; each is
the leader of a session, so that what it starts ends with it.
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from simulations.sessions import end_session
from simulations.settings import ExperimentSettings

RunFunction = Callable[[ExperimentSettings], None]
"""Runs a simulation; it has succeeded if it leaves a ``summary.json``."""

LOG, ERROR, SUMMARY = "run.log", "error.txt", "summary.json"

_APPS = ["simulations.server_app", "simulations.client_app"]
_LOG_LINES = 20


def cell_processes(*, preload: bool) -> ForkServerContext:
    """Return what starts the processes; with ``preload``, apps are imported once."""
    context = multiprocessing.get_context("forkserver")
    if preload:
        context.set_forkserver_preload(_APPS)
    return context


def start_cell(
    context: ForkServerContext, run: RunFunction, settings: ExperimentSettings
) -> ForkServerProcess:
    """Start a cell; its output goes to ``run.log`` in its folder."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    (settings.folder / ERROR).unlink(missing_ok=True)
    (settings.folder / LOG).write_text("", encoding="utf-8")
    process = context.Process(target=_run, args=(run, settings))
    process.start()
    return process


def conclude_cell(process: ForkServerProcess, folder: Path) -> bool:
    """Return whether an ended cell has its results; else say why in ``error.txt``."""
    process.join()
    if (folder / SUMMARY).exists() and process.exitcode == 0:
        return True
    (folder / SUMMARY).unlink(missing_ok=True)
    if not (folder / ERROR).exists():
        lines = (folder / LOG).read_text(encoding="utf-8", errors="replace")
        last = "\n".join(lines.splitlines()[-_LOG_LINES:])
        (folder / ERROR).write_text(
            f"{_how_it_ended(process)} without results. The end of {LOG}:\n\n{last}\n",
            encoding="utf-8",
        )
    return False


def end_cell(process: ForkServerProcess) -> None:
    """End a cell with everything that it started."""
    process.terminate()  # where it does not lead its session yet
    end_session(process.pid or 0)
    process.join()


def _run(run: RunFunction, settings: ExperimentSettings) -> None:
    os.setsid()
    with (settings.folder / LOG).open("w", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        run(settings)
    except Exception as error:
        # Whatever it was: the other cells go on, and the reason is kept.
        reason = f"{type(error).__name__}: {error}\n\n{traceback.format_exc()}"
        (settings.folder / ERROR).write_text(reason, encoding="utf-8")
        raise SystemExit(1) from None


def _how_it_ended(process: ForkServerProcess) -> str:
    code = process.exitcode or 0
    if code < 0:
        return f"The process was ended by {signal.Signals(-code).name}"
    return f"The process ended with exit code {code}"
