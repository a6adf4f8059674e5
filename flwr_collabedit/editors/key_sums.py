"""Sums over the keys of some text, on disk while the reading is unfinished."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from flwr_collabedit.algebra.second_moment import SecondMoment
from flwr_collabedit.errors import SecondMomentError
from flwr_collabedit.files import replacing

# Rows that are in float64 at once: at Llama 3's d_key of 14,336, half a gigabyte.
_ROWS_AT_ONCE = 4096


@dataclass
class KeySums:
    """The sums of several layers over the same tokens.

    Attributes
    ----------
    moments : mapping of int to SecondMoment
        By layer, at least one.
    num_documents : int
        Documents in them, from the first one on.
    whole : bool
        False while a batch is in some layers' sums and not yet in others'.
    """

    moments: Mapping[int, SecondMoment]
    num_documents: int = 0
    whole: bool = True

    @property
    def num_tokens(self) -> int:
        """Tokens in them, the same for every layer."""
        return next(iter(self.moments.values())).num_samples

    def add(self, keys: Mapping[int, Tensor], num_documents: int) -> None:
        """Add a batch of documents' keys, ``(token, d_key)`` by layer."""
        self.whole = False
        for layer, moment in self.moments.items():
            for rows in torch.split(keys[layer], _ROWS_AT_ONCE):
                moment.add(rows)
        self.num_documents += num_documents
        self.whole = True

    def save(self, path: Path) -> None:
        """Write the sums to the bit, whole or not at all."""
        tensors = {}
        for layer, moment in self.moments.items():
            tensors[f"{layer}.total"] = moment.total.cpu()
            tensors[f"{layer}.fourth_powers"] = moment.fourth_powers.cpu()
        counts = {"tokens": self.num_tokens, "documents": self.num_documents}
        with replacing(path) as draft:
            metadata = {name: str(count) for name, count in counts.items()}
            save_file(tensors, draft, metadata=metadata)

    @classmethod
    def load(cls, path: Path, layers: Sequence[int], device: torch.device) -> Self:
        """Return the sums in a file, on ``device``.

        They are copied to where torch would have allocated them: sums go on to the same
        bits only from the same alignment.

        Raises
        ------
        SecondMomentError
            If it cannot be read.
        """
        try:
            with safe_open(path, framework="pt") as file:
                counts = {name: int(text) for name, text in file.metadata().items()}
                moments = {
                    layer: SecondMoment.restored(
                        file.get_tensor(f"{layer}.total").to(device, copy=True),
                        file.get_tensor(f"{layer}.fourth_powers").to(device),
                        counts["tokens"],
                    )
                    for layer in layers
                }
            return cls(moments, counts["documents"])
        except (SafetensorError, OSError, LookupError, AttributeError) as error:
            raise SecondMomentError(
                f"Expected unfinished sums in '{path}', but they cannot be read: "
                f"{error}. Delete the file to begin again."
            ) from error
