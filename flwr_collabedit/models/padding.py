"""Rows of token ids of unequal length as one batch.

The only place that knows about padding sides: models read position ids and a mask, so
that where the padding stands changes nothing that they compute.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class PaddedBatch:
    """Rows of token ids as rectangular tensors of shape ``(row, position)``, int64.

    Attributes
    ----------
    input_ids : Tensor
        Token ids; ``pad_id`` at the padding.
    attention_mask : Tensor
        1 at tokens, 0 at the padding.
    position_ids : Tensor
        Each row's tokens counted from 0; 0 at the padding.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor

    def to(self, device: torch.device) -> Self:
        """Return the batch on another device."""
        return type(self)(
            self.input_ids.to(device),
            self.attention_mask.to(device),
            self.position_ids.to(device),
        )


def pad_batch(
    rows: Sequence[Sequence[int]],
    pad_id: int,
    *,
    side: Literal["left", "right"] = "right",
) -> PaddedBatch:
    """Return ``rows`` padded to the longest, on the CPU.

    Parameters
    ----------
    rows : sequence of sequence of int
        Token ids, at least one row; rows may be empty.
    pad_id : int
        What to fill with; masked, so that any id of the vocabulary serves.
    side : {"right", "left"}
        Where the padding goes: right to read positions counted from the start, left to
        append tokens to every row at once.
    """
    width = max(len(row) for row in rows)
    input_ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros_like(input_ids)
    positions = torch.zeros_like(input_ids)
    for index, row in enumerate(rows):
        start = width - len(row) if side == "left" else 0
        columns = slice(start, start + len(row))
        input_ids[index, columns] = torch.tensor(row, dtype=torch.long)
        mask[index, columns] = 1
        positions[index, columns] = torch.arange(len(row))
    return PaddedBatch(input_ids, mask, positions)
