"""The arithmetic and the memory traffic that the phases of an edit cannot do without.

A floor, so that a share of it that is reached cannot be too high: 2 FLOP for each
weight and token, every weight read once a pass. Attention scores, norms, padding and
activations are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.rows import subject_rows, target_rows
from flwr_collabedit.models.language_model import LanguageModel

ROWS_PER_BATCH = 128  # of `flwr_collabedit.editors.keys`


@dataclass(frozen=True)
class Work:
    """FLOP in the model's dtype and in float64, and bytes."""

    flop: float = 0.0
    flop64: float = 0.0
    num_bytes: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.flop + other.flop,
            self.flop64 + other.flop64,
            self.num_bytes + other.num_bytes,
        )


def targets_work(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    config: MemitConfig,
    contexts: ContextTemplates,
) -> Work:
    """Return that of the steps: suffixes above the edited layers, and the head.

    A step is a forward and a backward pass (of activations only), the last one a
    forward pass.
    """
    rows = [
        row for request in requests for row in target_rows(lm, 0, request, contexts)
    ]
    tokens = sum(len(row.suffix) for row in rows)
    reads = sum(len(row.reads) for row in rows)
    upper = num_weights(*lm.blocks[config.layers[-1] + 1 :])
    head = lm.hidden_size * int(lm.model.config.vocab_size)
    passes = 2 * config.num_gradient_steps - 1
    batches = -(-len(requests) // config.edits_per_batch)
    return Work(
        flop=2.0 * passes * (tokens * upper + reads * head),
        num_bytes=float(passes * batches * (upper + head) * lm.dtype.itemsize),
    )


def measure_work(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    config: MemitConfig,
    contexts: ContextTemplates,
) -> Work:
    """Return that of the keys and residuals of every layer, one after another."""
    keys = [
        row
        for request in requests
        for row in subject_rows(lm, request, contexts.fill(request.prompt))
    ]
    values = [
        row
        for request in requests
        for row in subject_rows(lm, request, [request.prompt])
    ]
    total = Work()
    for layer in config.layers:
        total += _forward(lm, keys, _weights_before_key(lm, layer))
        total += _forward(lm, values, num_weights(*lm.blocks[: config.layers[-1] + 1]))
    return total


def second_moment_work(
    lm: LanguageModel, layers: Sequence[int], num_tokens: int, num_batches: int
) -> Work:
    """Return that of ``sum k k^T`` in float64 and of the passes that give the keys."""
    weights = _weights_before_key(lm, layers[-1])
    d_key = d_key_of(lm, layers[0])
    return Work(
        flop=2.0 * num_tokens * weights,
        flop64=2.0 * num_tokens * d_key**2 * len(layers),
        num_bytes=num_batches
        * (weights * lm.dtype.itemsize + 2.0 * 8 * d_key**2 * len(layers)),
    )


def solve_work(d_key: int, d_value: int, num_edits: int, num_layers: int) -> Work:
    """Return that of the sums, the Cholesky factor and the two triangular solves."""
    sums = 2.0 * num_edits * d_key * (d_key + d_value)
    factor, solves = d_key**3 / 3, 2.0 * d_key**2 * d_value
    # The prior is read; the factor is written, and read once a solve.
    numbers = 4.0 * d_key**2 + 3.0 * d_key * d_value
    return Work(
        flop64=num_layers * (sums + factor + solves),
        num_bytes=num_layers * 8 * numbers,
    )


def num_weights(*modules: nn.Module) -> int:
    """Return how many numbers the modules' matrices hold."""
    return sum(p.numel() for m in modules for p in m.parameters() if p.dim() == 2)


def d_key_of(lm: LanguageModel, layer: int) -> int:
    """Return the width of a layer's keys."""
    weight = lm.model.get_parameter(lm.weight_name(layer))
    return weight.numel() // lm.hidden_size


def _weights_before_key(lm: LanguageModel, layer: int) -> int:
    blocks = num_weights(*lm.blocks[: layer + 1])
    return blocks - num_weights(lm.down_projection(layer))


def _forward(lm: LanguageModel, rows: Sequence[tuple[int, ...]], weights: int) -> Work:
    batches = -(-len(rows) // ROWS_PER_BATCH)
    return Work(
        flop=2.0 * sum(map(len, rows)) * weights,
        num_bytes=float(batches * weights * lm.dtype.itemsize),
    )


def dtype_name(dtype: torch.dtype) -> str:
    """Return ``float32`` of ``torch.float32``."""
    return str(dtype).removeprefix("torch.")
