"""What a deployment needs: bytes an exchange, memory of the server and of a party.

``python -m benchmarks.sizing``; ``--check`` holds the server's formula against the peak
memory of a real one.
"""

import resource
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated

import torch
import typer
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from rich.console import Console
from rich.table import Table

from benchmarks.payload import MODELS, factor_bytes
from flwr_collabedit.algebra.priors import RidgePrior
from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.payloads import (
    ARRAYS,
    CONFIG,
    METRICS,
    NUM_EDITS,
    SENDER,
    Arrays,
    array_keys,
    pack_statistics,
    to_record,
)
from flwr_collabedit.strategies import CollabEditStrategy
from simulations.in_process import InProcessGrid

PARAMETERS = {"gpt2-xl": 1.558e9, "gpt-j-6b": 6.051e9, "llama-7b": 6.738e9}
_FLOAT32, _FLOAT64 = 4, 8
_CHECKED = (3072, 768, 3)  # GPT-2 small's widths


@dataclass(frozen=True)
class Sizes:
    """Bytes of a federation that edits ``layers`` weights ``(d_value, d_key)``.

    Attributes
    ----------
    d_key, d_value, layers : int
        Of the edited weights.
    """

    d_key: int
    d_value: int
    layers: int

    @property
    def delta(self) -> int:
        """How many numbers the deltas of all edited weights have."""
        return self.layers * self.d_key * self.d_value

    @property
    def download(self) -> int:
        """Bytes to each party in every exchange, evaluations too: the deltas."""
        return _FLOAT32 * self.delta

    def upload(self, num_edits: int) -> int:
        """Bytes from a party in a sweep over all layers, form ``factors``."""
        return self.layers * factor_bytes(self.d_key, self.d_value, num_edits)

    @property
    def upload_dense(self) -> int:
        """The same, form ``dense``, however many edits there are."""
        triangle = self.d_key * (self.d_key + 1) // 2
        return _FLOAT32 * (self.layers * triangle + self.delta)

    @property
    def server(self) -> int:
        """Bytes of a server's matrices, its model apart; either schedule.

        Exact are second moments in float32 and, of every layer, sums as pairs of
        float64. The copies of the deltas and what adding to one layer and solving it
        take are fitted to measured peaks.
        """
        gram, cross = self.d_key**2, self.d_key * self.d_value
        second_moments = _FLOAT32 * self.layers * gram
        sums = 2 * _FLOAT64 * self.layers * (gram + cross)
        deltas = round(6.5 * _FLOAT64) * self.delta
        work = round(9.5 * _FLOAT64) * gram + round(8.5 * _FLOAT64) * cross
        return second_moments + sums + deltas + work

    @property
    def party(self) -> int:
        """Bytes of a party's deltas, its model and the optimisation apart.

        As a message, as arrays and as tensors, and the weights to be put back.
        """
        return 4 * _FLOAT32 * self.delta


def main(
    edits: Annotated[int, typer.Option(help="Edits of a party in a round.")] = 100,
    check: Annotated[bool, typer.Option(help="Measure a server.")] = False,
    measure: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Print the sizes of the models that MEMIT's hyperparameters are published for."""
    if measure:
        sys.stdout.write(str(grown(measure)))
        return
    console = Console()
    network = Table(title=f"MB a party and sweep, float32, {edits} edits")
    for column in ("model", "down, an exchange", "up, factors", "up, dense"):
        network.add_column(column, justify="left" if column == "model" else "right")
    memory = Table(title="Memory in GB: the model in float32 + matrices")
    for column in ("model", "party", "server"):
        memory.add_column(column, justify="left" if column == "model" else "right")
    for name, shape in MODELS.items():
        sizes = Sizes(*shape)
        up = sizes.upload(edits), sizes.upload_dense
        cells = [f"{size / 1e6:,.1f}" for size in (sizes.download, *up)]
        network.add_row(name, *cells)
        model = f"{_FLOAT32 * PARAMETERS[name] / 1e9:.1f}"
        own = sizes.party, sizes.server
        memory.add_row(name, *(f"{model} + {size / 1e9:.1f}" for size in own))
    console.print(network, memory)
    if check:
        console.print(checked())


def checked() -> Table:
    """Return the formula beside the growth of a real server's peak memory."""
    table = Table(title="Server of {2} layers {1} x {0}, MB".format(*_CHECKED))
    for column in ("schedule", "formula", "measured"):
        table.add_column(column, justify="left" if column == "schedule" else "right")
    for schedule in ("synchronous", "frozen"):
        command = [sys.executable, "-m", "benchmarks.sizing", "--measure", schedule]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        formula = Sizes(*_CHECKED).server / 1e6
        table.add_row(schedule, f"{formula:,.0f}", f"{float(done.stdout):,.0f}")
    return table


def grown(schedule: str) -> float:
    """Return by how many MB a server's peak memory grows in a round of four clients."""
    d_key, d_value, layers = _CHECKED
    names = [f"layer-{number}" for number in range(layers)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    shapes = dict.fromkeys(names, (d_value, d_key))
    strategy = CollabEditStrategy(
        EditedModel(fingerprint="benchmark", shapes=shapes),
        {name: RidgePrior(torch.eye(d_key)) for name in names},
        layer_schedule=schedule,
        hyperparameters="{}",
        contexts="[]",
        min_available_nodes=4,
        evaluate=False,
    )
    grid = InProcessGrid(random_client(d_key, d_value), 4)
    strategy.start(grid, strategy.initial_arrays(), num_rounds=1)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (after - before) * 1024 / 1e6


def random_client(d_key: int, d_value: int, num_edits: int = 20) -> ClientApp:
    """Return a ClientApp that replies with the factors of random edits."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        instruction = Instruction.from_config(message.content.config_records[CONFIG])
        generator = torch.Generator().manual_seed(context.node_id)
        arrays: Arrays = []
        for _ in instruction.measured:
            keys, residuals = (
                torch.randn(d, num_edits, generator=generator, dtype=torch.float64)
                for d in (d_key, d_value)
            )
            arrays += pack_statistics(keys, residuals, "factors", "float32")
        names = array_keys(instruction.measured, "factors")
        sender = {SENDER: str(context.node_id), **instruction.reply_config()}
        content = RecordDict(
            {
                ARRAYS: to_record(names, arrays),
                METRICS: MetricRecord({NUM_EDITS: num_edits}),
                CONFIG: ConfigRecord(sender),
            }
        )
        return Message(content, reply_to=message)

    return app


if __name__ == "__main__":
    typer.run(main)
