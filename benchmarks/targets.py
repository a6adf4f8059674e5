"""Edits per second of the batched targets, against one at a time as published.

Run ``python -m benchmarks.targets``. Both sides minimise the same loss with the same
number of steps (early stop off) in one run; the plain one is timed on a few edits,
spread over the others. The floor is the arithmetic that the shortcuts leave: suffix
tokens through the upper blocks and the vocabulary at the positions that are read,
forward and backward.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.plain_memit import plain_target
from benchmarks.target_settings import (
    SIZES,
    Setting,
    embedded_setting,
    random_setting,
)
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.rows import target_rows
from flwr_collabedit.editors.targets import optimize_targets
from flwr_collabedit.models.loading import EMBEDDED_MODEL

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
# Float32, 20 steps of Adam: rounding grows to about 1e-5 of the largest entry.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Comparison:
    """Seconds per edit of both sides, and what they mean."""

    plain_s: float
    ours_s: float
    difference: float
    floor_flop: float
    peak_flop_per_s: float

    def row(self) -> list[str]:
        """Return the cells of the table."""
        reached = self.floor_flop / self.ours_s
        return [
            f"{self.plain_s:.3f}",
            f"{self.ours_s:.4f}",
            f"{1 / self.ours_s:.2f}",
            f"{self.plain_s / self.ours_s:.1f}",
            f"{self.difference:.1e}",
            f"{self.floor_flop / 1e9:.2f}",
            f"{reached / 1e9:.0f}",
            f"{self.peak_flop_per_s / 1e9:.0f}",
            f"{reached / self.peak_flop_per_s:.0%}",
        ]


COLUMNS = (
    "model",
    "plain s/edit",
    "ours s/edit",
    "ours edits/s",
    "times faster",
    "max rel. diff.",
    "floor GFLOP/edit",
    "floor GFLOP/s",
    "matmul GFLOP/s",
    "of matmul",
)


def main(
    model_size: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(SIZES)}, embedded")
    ] = None,
    edits: Annotated[int, typer.Option(help="edits of our side")] = 32,
    plain_edits: Annotated[int, typer.Option(help="edits of the plain side")] = 3,
    steps: Annotated[int, typer.Option(help="evaluations of the loss")] = 20,
    batch: Annotated[int, typer.Option(help="edits optimised as one tensor")] = 32,
    device: str = "cpu",
    threads: int = 2,
    tokenizer: Path = SHARED / "gpt2_tokenizer",
    requests: Path = SHARED / "multi_counterfact-50.json",
) -> None:
    """Print one row for each model; end with an error if the two sides differ."""
    torch.set_num_threads(threads)
    table = Table(
        *COLUMNS,
        title=f"{edits} edits in batches of {batch} (plain: {plain_edits} edits), "
        f"{steps} steps, {device}, {threads} threads",
    )
    shipped = ["embedded"] if (EMBEDDED_MODEL / "config.json").exists() else []
    worst = 0.0
    for name in model_size or ["gpt2-small", *shipped]:
        setting = (
            embedded_setting(edits, device)
            if name == "embedded"
            else random_setting(
                name, edits, device, tokenizer=tokenizer, requests=requests
            )
        )
        config = MemitConfig(
            layers=(setting.last_edited_layer,),
            num_gradient_steps=steps,
            stop_loss=0.0,
            edits_per_batch=batch,
        )
        compared = compare(setting, config, plain_edits)
        table.add_row(name, *compared.row())
        worst = max(worst, compared.difference)
    Console(width=130).print(table)
    if worst > TOLERANCE:
        sys.exit(f"Expected targets equal to {TOLERANCE:.0e}, found {worst:.1e}.")


def compare(setting: Setting, config: MemitConfig, plain_edits: int) -> Comparison:
    """Time both sides on the same requests."""
    lm, requests, contexts = setting.lm, setting.requests, setting.contexts
    chosen = range(0, len(requests), max(1, len(requests) // plain_edits))[:plain_edits]
    short = config.model_copy(update={"num_gradient_steps": 2})
    optimize_targets(lm, requests[:2], short, contexts)  # warm-up of both sides
    peak = _matmul_flop_per_s(lm.device)
    plain_s, plain = _timed(
        lambda: torch.stack(
            [plain_target(lm, requests[i], config, contexts).z for i in chosen]
        ),
        lm.device,
    )
    ours_s, ours = _timed(
        lambda: optimize_targets(lm, requests, config, contexts).z, lm.device
    )
    return Comparison(
        plain_s=plain_s / len(plain),
        ours_s=ours_s / len(ours),
        difference=float((ours[list(chosen)] - plain).abs().max() / plain.abs().max()),
        floor_flop=_floor_flop(setting, config),
        peak_flop_per_s=peak,
    )


def _timed(
    function: Callable[[], Tensor], device: torch.device
) -> tuple[float, Tensor]:
    _wait(device)
    began = perf_counter()
    result = function()
    _wait(device)
    return perf_counter() - began, result


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _matmul_flop_per_s(device: torch.device) -> float:
    """Return the best of five square float32 matrix products."""
    size = 2048 if device.type == "cpu" else 8192
    matrix = torch.randn(size, size, device=device)
    best = min(_timed(lambda: matrix @ matrix, device)[0] for _ in range(5))
    return 2 * size**3 / best


def _floor_flop(setting: Setting, config: MemitConfig) -> float:
    """Return the FLOP of an edit: 2 for each weight, token and pass."""
    lm = setting.lm
    rows = [
        row
        for request in setting.requests
        for row in target_rows(lm, 0, request, setting.contexts)
    ]
    tokens = sum(len(row.suffix) for row in rows) / len(setting.requests)
    reads = sum(len(row.reads) for row in rows) / len(setting.requests)
    upper = list(lm.blocks)[config.layers[-1] + 1 :]
    block_weights = sum(p.numel() for block in upper for p in block.parameters())
    head_weights = int(lm.model.config.vocab_size) * lm.hidden_size
    passes = 2 * config.num_gradient_steps - 1  # the last step has no backward pass
    return 2.0 * passes * (tokens * block_weights + reads * head_weights)


if __name__ == "__main__":
    typer.run(main)
