"""The tables that the demonstration prints."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from deployment.outcome import WeightGap, message_costs
from deployment.processes import Started
from flwr_collabedit.evaluation.report import ABSENT
from simulations.sessions import members

_SCORES = ("Score", "ES", "PS", "NS", "EA")
_METHOD = "CollabEdit"


def weights_table(gaps: Sequence[WeightGap], tolerance: float) -> Table:
    """Return the deployment's deltas against the simulation's, weight by weight."""
    table = Table(title=f"Deltas against the simulation's (allowed: {tolerance:.0e})")
    table.add_column("weight")
    table.add_column("relative gap", justify="right")
    table.add_column("bits")
    for gap in gaps:
        table.add_row(gap.name, f"{gap.gap:.1e}", "equal" if gap.is_equal else "differ")
    return table


def scores_table(simulated: dict[str, Any], deployed: dict[str, Any]) -> Table:
    """Return the scores of the two runs, in percent, from their summaries."""
    table = Table(title="Scores, in percent")
    table.add_column("run")
    for name in _SCORES:
        table.add_column(name, justify="right")
    for title, summary in (("simulation", simulated), ("deployment", deployed)):
        scores = summary["scores"][_METHOD]
        table.add_row(title, *(f"{scores[name]:.1f}" for name in _SCORES))
    return table


def messages_table(started: Sequence[Started]) -> Table:
    """Return what each message cost each SuperNode that was sent any."""
    table = Table(title="Messages to the SuperNodes")
    table.add_column("SuperNode")
    for column in ("message", "model load, s", "targets optimised", "kept"):
        table.add_column(column, justify="right")
    for process in started:
        for number, cost in enumerate(message_costs(process.log), start=1):
            counts = [
                ABSENT if count is None else str(count)
                for count in (cost.optimised, cost.kept)
            ]
            table.add_row(process.what, str(number), f"{cost.load_s:.1f}", *counts)
    return table


def processes_table(started: Sequence[Started]) -> Table:
    """Return what was started and whether it has ended."""
    table = Table(title="Processes")
    table.add_column("process")
    table.add_column("pid", justify="right")
    table.add_column("port", justify="right")
    table.add_column("now")
    for process in started:
        now = "running" if members(process.pid) else "ended"
        table.add_row(process.what, str(process.pid), str(process.port), now)
    return table
