"""The live table of a sweep: how far each method is, what runs, what failed."""

import time
from collections import Counter
from enum import StrEnum

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from simulations.sweep_file import Cell


class State(StrEnum):
    """Where a cell stands."""

    WAITING = "waiting"
    RUNNING = "running"
    SKIPPED = "finished earlier"
    FINISHED = "finished"
    FAILED = "failed"


class Progress:
    """Every cell's state, shown as a table; give it to ``rich.live.Live``.

    Parameters
    ----------
    cells : list of Cell
        All cells of the sweep.
    console : Console
        Where ended cells are told, one line each.
    """

    def __init__(self, cells: list[Cell], console: Console) -> None:
        self._console = console
        self._states = {cell.name: State.WAITING for cell in cells}
        self._methods = {cell.name: cell.method for cell in cells}
        self._began = time.monotonic()
        self._cell_began: dict[str, float] = {}

    def set(self, cell: Cell, state: State) -> None:
        """Take over a cell's new state."""
        self._states[cell.name] = state
        now = time.monotonic()
        if state is State.RUNNING:
            self._cell_began[cell.name] = now
        elif state in (State.FINISHED, State.FAILED):
            seconds = now - self._cell_began.get(cell.name, now)
            colour = "green" if state is State.FINISHED else "red"
            line = Text.assemble((state, colour), f" {cell.name}, {seconds:.0f} s")
            self._console.print(line, soft_wrap=True)

    def count(self, state: State) -> int:
        """Return how many cells are in a state."""
        return list(self._states.values()).count(state)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        """Yield the table as of now."""
        table = Table(title=f"Sweep, {time.monotonic() - self._began:.0f} s")
        table.add_column("method", ratio=1)
        for state in State:
            table.add_column(state, justify="right")
        for method in dict.fromkeys(self._methods.values()):
            own = [name for name, given in self._methods.items() if given == method]
            counts = Counter(self._states[name] for name in own)
            numbers = [str(counts[state] or "") for state in State]
            table.add_row(*(Text(cell) for cell in (method or "all", *numbers)))
        yield table
        for name, state in self._states.items():
            if state is State.RUNNING:
                yield Text(f"{state} {name}", overflow="ellipsis", no_wrap=True)
