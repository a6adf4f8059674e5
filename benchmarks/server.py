"""The server alone: memory while many clients reply, and what its solve costs.

``python -m benchmarks.server``
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Annotated

import torch
import typer
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from rich.console import Console
from rich.table import Table

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.factors import seal
from flwr_collabedit.algebra.least_squares import (
    factor_cholesky,
    solve_update,
    solve_update_woodbury,
)
from flwr_collabedit.algebra.priors import RidgePrior
from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.payloads import (
    ARRAYS,
    CONFIG,
    METRICS,
    NUM_EDITS,
    SENDER,
    array_keys,
    pack_statistics,
    to_record,
)
from flwr_collabedit.strategies import CollabEditStrategy
from simulations.in_process import InProcessGrid

D_KEY, D_VALUE, EDITS = 3072, 768, 50  # GPT-2 small


def main(
    clients: Annotated[str, typer.Option(help="Numbers of clients.")] = "10,100",
    threads: Annotated[int, typer.Option(help="Torch threads.")] = 2,
    measure: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Print both tables; every number of clients runs in a process of its own."""
    torch.set_num_threads(threads)
    if measure:
        sys.stdout.write(json.dumps(serve(measure)))
        return
    console = Console()
    memory = Table(title=f"One layer, d_key {D_KEY}, {EDITS} edits a client, float32")
    for column in ("clients", "peak RSS, MiB", "above start, MiB", "seconds"):
        memory.add_column(column, justify="right")
    for count in clients.split(","):
        command = [sys.executable, "-m", "benchmarks.server", "--measure", count]
        found = json.loads(
            subprocess.run(command, check=True, capture_output=True).stdout
        )
        memory.add_row(
            count, *(f"{found[k]:,.1f}" for k in ("peak", "grown", "seconds"))
        )
    console.print(memory)
    console.print(solve_table())


def serve(num_clients: int) -> dict[str, float]:
    """Return the peak memory of a server whose clients reply with random statistics."""
    model = EditedModel(fingerprint="benchmark", shapes={"layer": (D_VALUE, D_KEY)})
    strategy = CollabEditStrategy(
        model,
        {"layer": RidgePrior(torch.eye(D_KEY))},
        hyperparameters="{}",
        contexts="[]",
        min_available_nodes=num_clients,
        evaluate=False,
    )
    grid = InProcessGrid(random_client(), num_clients)
    arrays = strategy.initial_arrays()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    began = time.perf_counter()
    strategy.start(grid, arrays, num_rounds=1)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"peak": peak, "grown": peak - before, "seconds": seconds}


def random_client() -> ClientApp:
    """Return a ClientApp that replies to any instruction with random statistics."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        instruction = Instruction.from_config(message.content.config_records[CONFIG])
        generator = torch.Generator().manual_seed(context.node_id)
        keys = torch.randn(D_KEY, EDITS, generator=generator, dtype=torch.float64)
        residuals = torch.randn(
            D_VALUE, EDITS, generator=generator, dtype=torch.float64
        )
        parts = pack_statistics(keys, residuals, instruction.form, "float32")
        content = RecordDict(
            {
                ARRAYS: to_record(array_keys(["layer"], instruction.form), parts),
                METRICS: MetricRecord({NUM_EDITS: EDITS}),
                CONFIG: ConfigRecord(
                    {SENDER: str(context.node_id), **instruction.reply_config()}
                ),
            }
        )
        return Message(content, reply_to=message)

    return app


def solve_table() -> Table:
    """Return the solve's time against the bare Cholesky factor and solve."""
    table = Table(title=f"Solve of {EDITS} edits in float64, seconds")
    for column in ("d_key", "d_value", "ours", "bare Cholesky", "ratio"):
        table.add_column(column, justify="right")
    table.add_column("Woodbury, factor of C at hand", justify="right")
    table.add_column("its difference", justify="right")
    for d_key, d_value in ((1024, 256), (D_KEY, D_VALUE), (6400, 1600)):
        keys = torch.randn(d_key, EDITS, dtype=torch.float64)
        residuals = torch.randn(d_value, EDITS, dtype=torch.float64)
        total = EditStatistics.from_pairs(keys, residuals)
        sealed = seal(keys, residuals)
        prior = torch.eye(d_key, dtype=torch.float64)
        factor = factor_cholesky(prior)
        ours, delta = best_of(lambda s=total, p=prior: solve_update(s, p))
        bare, _ = best_of(lambda s=total, p=prior: bare_solve(s, p))
        quick, other = best_of(lambda s=sealed, f=factor: solve_update_woodbury(s, f))
        table.add_row(
            *(str(d_key), str(d_value), f"{ours:.3f}", f"{bare:.3f}"),
            *(f"{ours / bare:.2f}", f"{quick:.3f}"),
            f"{float((other - delta).norm() / delta.norm()):.0e}",
        )
    return table


def bare_solve(total: EditStatistics, prior: torch.Tensor) -> torch.Tensor:
    """Return the same update without any check."""
    factor = torch.linalg.cholesky(prior + total.gram)
    return torch.cholesky_solve(total.cross.T, factor).T


def best_of(
    function: Callable[[], torch.Tensor], repeats: int = 3
) -> tuple[float, torch.Tensor]:
    """Return the shortest of some runs, in seconds, and what they return."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        found = function()
        times.append(time.perf_counter() - began)
    return min(times), found


if __name__ == "__main__":
    typer.run(main)
