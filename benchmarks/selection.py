"""The server's selection of mediator vectors: its time and its memory.

`benchmarks.mkv` runs it.
"""

from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch
from rich.table import Table
from torch.nn.functional import normalize

from flwr_collabedit.algebra.mediator import (
    MediatorVectors,
    calibrated_alpha,
    select_relevant,
)
from flwr_collabedit.strategies.mediator_store import MediatorStore

ALPHA, PERCENTILE, CALIBRATED_ON = 0.4, 90.0, 2000

Figures = dict[str, float]


def select(clients: int, vectors: int, width: int) -> dict[str, Figures]:
    """Return seconds, the floor's seconds and memory, in MiB, of the server's work."""
    store = random_store(clients, vectors, width)
    groups = [entry.vectors.z for entry in store.of_slot(1)]

    def choose() -> None:
        for node, own in enumerate(groups):
            for entry in store.others(node):
                select_relevant(entry.vectors.z, own, ALPHA)

    def multiply() -> None:
        for node, own in enumerate(groups):
            for other in groups[:node] + groups[node + 1 :]:
                other @ own.T

    total = clients * vectors
    few = normalize(torch.cat(groups)[:: max(1, -(-total // CALIBRATED_ON))])
    held = total * width * 8 / 2**20
    return {
        "select for all": {"held": held} | measured(choose, multiply),
        "calibrate alpha": {"held": held}
        | measured(lambda: calibrated_alpha(groups, PERCENTILE), lambda: few @ few.T),
    }


def measured(work: Callable[[], object], floor: Callable[[], object]) -> Figures:
    """Return the seconds of both, and by how much the first one's memory grows."""
    # Writing 5 sets the peak back to what is in use; Linux only.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = peak_mib()
    began = perf_counter()
    work()
    seconds = perf_counter() - began
    grown = peak_mib() - before
    began = perf_counter()
    floor()
    return {
        "seconds": seconds,
        "floor": perf_counter() - began,
        "grown": grown,
    }


def random_store(clients: int, vectors: int, width: int) -> MediatorStore:
    """Return a slot's store; targets have a large common part, as real ones do."""
    store = MediatorStore()
    generator = torch.Generator().manual_seed(0)
    for node in range(clients):
        z = torch.randn(vectors, width, generator=generator, dtype=torch.float64)
        steps = torch.zeros(vectors, dtype=torch.int64)
        entry = MediatorVectors(z.add_(1), z, {}, steps)
        store.add(1, node, f"client-{node}", entry)
    return store


def peak_mib() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def selection_table(found: dict[str, Figures], title: str) -> Table:
    """Return a line for the condition and one for the calibration of alpha."""
    table = Table(title=f"The server: {title}")
    table.add_column("")
    for column in (
        *("seconds", "bare matmul", "ratio", "vectors compared, MiB"),
        "peak above, MiB",
    ):
        table.add_column(column, justify="right")
    for name, row in found.items():
        table.add_row(
            *(name, f"{row['seconds']:.2f}", f"{row['floor']:.2f}"),
            *(f"{row['seconds'] / row['floor']:.2f}", f"{row['held']:,.0f}"),
            f"{row['grown']:,.0f}",
        )
    return table
