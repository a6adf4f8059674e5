"""Large federations: time and memory for more clients with the same edits in all.

``python -m benchmarks.clients``
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from simulations.engines import Engine
from simulations.launch import run
from simulations.settings import ExperimentSettings

_POLL_S = 0.5


def main(
    clients: Annotated[str, typer.Option(help="Numbers of clients.")] = "10,50,200",
    edits: Annotated[int, typer.Option(help="Edits of all clients together.")] = 200,
    engine: Annotated[
        Engine, typer.Option(help="What runs the clients.")
    ] = Engine.IN_PROCESS,
    measure: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Print seconds and memory; every number of clients has a process of its own."""
    if measure:
        settings = ExperimentSettings.model_validate_json(measure)
        run(settings, engine)
        return
    table = Table(
        title=f"{edits} edits in all, one round, embedded model, {engine}",
        caption="Memory is that of all processes at their peak, shared pages once. "
        "A client's cost is what it adds to the smallest federation.",
    )
    for column in ("clients", "seconds", "MiB", "seconds a client", "MiB a client"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        # Fills the cache of second moments, so that no run shown pays for them.
        run_and_watch(2, 2, engine, Path(folder))
        numbers = sorted(map(int, clients.split(",")))
        found = {n: run_and_watch(n, edits, engine, Path(folder)) for n in numbers}
    first = numbers[0]
    for number, figures in found.items():
        added = [
            f"{(figure - base) / (number - first):.3f}" if number > first else "-"
            for figure, base in zip(figures, found[first], strict=True)
        ]
        seconds, mebibytes = figures
        table.add_row(str(number), f"{seconds:.1f}", f"{mebibytes:.0f}", *added)
    Console().print(table)


def run_and_watch(
    clients: int, edits: int, engine: Engine, folder: Path
) -> tuple[float, float]:
    """Return the seconds and the peak MiB of a simulation in its own processes."""
    settings = ExperimentSettings(
        output_folder=str(folder / f"{clients}-clients-{edits}-edits"),
        cache_folder=str(folder / "cache"),
        num_clients=clients,
        num_edits=edits,
        num_rounds=1,
        subjects="all",
        second_moment_samples=2000,
        pooled_reference=False,
    )
    settings.folder.mkdir()
    command = [sys.executable, "-m", "benchmarks.clients", "--engine", engine]
    command += ["--measure", settings.model_dump_json(by_alias=True)]
    log = settings.folder / "run.log"
    began, peak = time.perf_counter(), 0.0
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
        while process.poll() is None:
            peak = max(peak, sum(map(memory, descendants(process.pid))))
            time.sleep(_POLL_S)
    seconds = time.perf_counter() - began
    if not (settings.folder / "summary.json").exists():
        raise SystemExit(log.read_text(encoding="utf-8"))
    return seconds, peak


def descendants(pid: int) -> set[int]:
    """Return a process and all that it started, directly or not."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in brackets, may hold spaces; state and parent follow it.
            rest = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents[int(stat.parent.name)] = int(rest[1])
    found, last = {pid}, set()
    while found != last:
        last = found
        found = found | {child for child, parent in parents.items() if parent in found}
    return found


def memory(pid: int) -> float:
    """Return a process's memory in MiB, a page that n processes share as 1/n."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    except OSError:  # it has ended
        return 0.0
    sizes = [line.split()[1] for line in lines.splitlines() if line.startswith("Pss:")]
    return int(sizes[0]) / 1024 if sizes else 0.0


if __name__ == "__main__":
    typer.run(main)
