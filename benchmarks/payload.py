"""Bytes that one client uploads for all edited layers: dense, triangle, factors.

``python -m benchmarks.payload``
"""

from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from flwr_collabedit.messages.payloads import (
    array_keys,
    pack_statistics,
    record_bytes,
    to_record,
)

# (d_key, d_value, edited layers) of the published MEMIT hyperparameters.
MODELS = {
    "gpt2-xl": (6400, 1600, 5),
    "gpt-j-6b": (16384, 4096, 6),
    "llama-7b": (11008, 4096, 5),
}
_BYTES = 4  # float32, the default on the wire


def main(
    edits: Annotated[str, typer.Option(help="Edits of a client, comma-separated.")] = (
        "10,100,500"
    ),
) -> None:
    """Print the sizes; those of the factors are measured on real messages."""
    table = Table(title="MB a client uploads in one round, float32, all edited layers")
    for column in ("model", "edits", "dense", "triangle", "factors", "dense/factors"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name, (d_key, d_value, layers) in MODELS.items():
        for count in map(int, edits.split(",")):
            dense = layers * _BYTES * (d_key**2 + d_key * d_value)
            triangle = layers * _BYTES * (d_key * (d_key + 1) // 2 + d_key * d_value)
            factors = layers * factor_bytes(d_key, d_value, count)
            sizes = [f"{size / 1e6:,.1f}" for size in (dense, triangle, factors)]
            table.add_row(name, str(count), *sizes, f"{dense / factors:.1f}")
    Console().print(table)


def factor_bytes(d_key: int, d_value: int, num_edits: int) -> int:
    """Return the bytes of one layer's sealed factors as a message carries them."""
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(d_key, num_edits, generator=generator, dtype=torch.float64)
    residuals = torch.randn(
        d_value, num_edits, generator=generator, dtype=torch.float64
    )
    arrays = pack_statistics(keys, residuals, "factors", "float32")
    return record_bytes(to_record(array_keys(["layer"], "factors"), arrays))


if __name__ == "__main__":
    typer.run(main)
