"""Attention keys and values of the positions that an edit's target cannot change.

Positions before the subject's last token do not depend on ``delta``, so they are run
once, and what their rows have in common (a context) is run once for all rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import DynamicCache, DynamicLayer

from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.padding import pad_batch


@dataclass(frozen=True)
class Continuation:
    """Right-padded tokens that follow a prefix, as the decoder wants them.

    Attributes
    ----------
    input_ids, position_ids : Tensor
        Shape ``(row, position)``.
    attention_mask : Tensor
        Shape ``(row, prefix position + position)``.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor


@dataclass(frozen=True)
class PrefixCache:
    """Keys and values of several rows' first tokens, left-padded, one pair a layer.

    Attributes
    ----------
    layers : tuple of (Tensor, Tensor) or None
        Each ``(row, head, position, d_head)``, where the layer computes; ``None`` for
        layers that were dropped.
    lengths : Tensor
        Tokens of each row, shape ``(row,)``, int64, on the device of the model.
    """

    layers: tuple[tuple[Tensor, Tensor] | None, ...]
    lengths: Tensor

    @classmethod
    def empty(cls, lm: LanguageModel, num_rows: int) -> Self:
        """Return the cache of rows that have no tokens yet."""
        lengths = torch.zeros(num_rows, dtype=torch.long, device=lm.device)
        return cls((None,) * lm.num_layers, lengths)

    @property
    def width(self) -> int:
        """Positions, padding included."""
        return next((pair[0].shape[2] for pair in self.layers if pair), 0)

    def select(self, rows: Tensor) -> "PrefixCache":
        """Return the cache of the rows at the indices ``rows``, trimmed."""
        lengths = self.lengths[rows]
        surplus = self.width - int(lengths.max()) if len(rows) else 0

        def picked(states: Tensor) -> Tensor:
            return states.index_select(0, rows.to(states.device))[:, :, surplus:]

        return PrefixCache(
            tuple(pair and (picked(pair[0]), picked(pair[1])) for pair in self.layers),
            lengths,
        )

    @classmethod
    def join(cls, caches: Sequence["PrefixCache"]) -> "PrefixCache":
        """Return the rows of all ``caches``, in their order, as one."""
        widest = max(caches, key=lambda cache: cache.width)
        layers = tuple(
            pair
            and (
                torch.cat([cache._widened(index, 0, pair[0]) for cache in caches]),
                torch.cat([cache._widened(index, 1, pair[1]) for cache in caches]),
            )
            for index, pair in enumerate(widest.layers)
        )
        return cls(layers, torch.cat([cache.lengths for cache in caches]))

    def above(self, layer: int) -> "PrefixCache":
        """Return the cache without layers up to ``layer``, which no longer run.

        Of layer 0 the shape stays: transformers reads the number of past positions
        from it.
        """
        kept: list[tuple[Tensor, Tensor] | None] = list(self.layers)
        kept[: layer + 1] = [None] * (layer + 1)
        if self.width:
            shape = torch.zeros_like(self.lengths)[:, None, None, None]
            shape = shape.expand(-1, 1, self.width, 1)
            kept[0] = shape, shape
        return PrefixCache(tuple(kept), self.lengths)

    def as_past(self) -> DynamicCache:
        """Return a fresh transformers cache; the model may append to it."""
        past = DynamicCache()
        for pair in self.layers:
            layer = DynamicLayer()  # type: ignore[no-untyped-call]  # in transformers
            if pair is not None and self.width:
                # As update() would, less a copy; appending makes new tensors.
                layer.lazy_initialization(*pair)
                layer.keys, layer.values = pair
            past.layers.append(layer)
        return past

    def continuation(
        self, lm: LanguageModel, rows: Sequence[Sequence[int]]
    ) -> Continuation:
        """Return ``rows``, right-padded, as what follows this prefix."""
        padded = pad_batch(rows, lm.pad_token_id)
        return Continuation(
            padded.input_ids.to(lm.device),
            self.lengths[:, None] + padded.position_ids.to(lm.device),
            torch.cat([self._mask(), padded.attention_mask.to(lm.device)], dim=1),
        )

    @torch.no_grad()
    def extend(self, lm: LanguageModel, rows: Sequence[Sequence[int]]) -> "PrefixCache":
        """Return the cache after the tokens ``rows`` as well."""
        if not any(rows):
            return self
        new = self.continuation(lm, rows)
        past = self.as_past()
        lm.decoder(
            input_ids=new.input_ids,
            attention_mask=new.attention_mask,
            position_ids=new.position_ids,
            past_key_values=past,
            use_cache=True,
        )
        counts = torch.tensor([len(row) for row in rows], device=lm.device)
        pairs = [
            (layer.keys, layer.values)
            for layer in past.layers
            if isinstance(layer, DynamicLayer)
            and layer.keys is not None
            and layer.values is not None
        ]
        if counts.min() == counts.max():  # no right-padding, so no gaps
            return PrefixCache(tuple(pairs), self.lengths + counts)
        return self._left_padded(pairs, self.lengths + counts)

    def _widened(self, index: int, side: int, like: Tensor) -> Tensor:
        """Return a layer's keys (0) or values (1), left-padded to ``like``'s width."""
        pair = self.layers[index]
        if pair is None:
            return like.new_zeros(len(self.lengths), *like.shape[1:])
        return pad(pair[side], (0, 0, like.shape[2] - self.width, 0))

    def _mask(self) -> Tensor:
        """1 where a prefix position holds a token, shape ``(row, position)``."""
        columns = torch.arange(self.width, device=self.lengths.device)
        return (columns >= self.width - self.lengths[:, None]).long()

    def _left_padded(
        self, pairs: Sequence[tuple[Tensor, Tensor]], lengths: Tensor
    ) -> "PrefixCache":
        """Close the gaps that right-padding left between prefix and new tokens."""
        width = int(lengths.max())
        columns = torch.arange(width, device=lengths.device)
        token = columns - (width - lengths[:, None])  # (row, position); < 0: padding
        old = self.lengths[:, None]
        # Old tokens end at column self.width, new ones begin there.
        source = self.width + token - old
        index = source.clamp(min=0)[:, None, :, None]
        valid = (token >= 0)[:, None, :, None]

        def close(states: Tensor) -> Tensor:
            places = index.expand(-1, states.shape[1], -1, states.shape[3])
            picked = states.gather(2, places.to(states.device))
            return torch.where(valid.to(states.device), picked, 0)

        return PrefixCache(tuple((close(k), close(v)) for k, v in pairs), lengths)
