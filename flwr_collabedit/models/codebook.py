"""A codebook: what a layer is to put out for some of its inputs, in place of a weight.

Hartvigsen et al. "Aging with GRACE: Lifelong Model Editing with Discrete Key-Value
Adaptors", NeurIPS 2023, https://arxiv.org/abs/2211.11031.

The paper looks the last token of the prompt up, and its code has to be told where that
is (``replace_last``). Here every position is looked up, in whatever is read. The model
is causal, so that a prompt's last token has the same key whatever follows it: the rule
answers alike in teacher-forced scores and in generation, with padding on either side,
and with or without a key-value cache. The price is that other positions may match too,
where they are as near to a stored key as a prompt's last token would have to be.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Self

import torch
from torch import Tensor

from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.models.hooks import find_module, replace_output, trace
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import applied_deltas


@dataclass(frozen=True)
class Codebook:
    """Keys with the values that a module is to put out near them.

    Attributes
    ----------
    module : str
        Name of the module, such as ``transformer.h.3.mlp.c_proj``.
    keys : Tensor
        Inputs of the module, ``(entry, d_key)``, at least float32.
    values : Tensor
        What it is to put out, ``(entry, d_value)``, of the dtype of ``keys``.
    radii : Tensor
        How near to its key an entry answers, ``(entry,)``, of the same dtype.
    labels : Tensor
        `label_of` what an entry is to make the model say, ``(entry,)``, int64.
    """

    module: str
    keys: Tensor
    values: Tensor
    radii: Tensor
    labels: Tensor

    @classmethod
    def empty(cls, module: str, d_key: int, d_value: int, like: Tensor) -> Self:
        """Return a codebook without entries, of the dtype and device of ``like``."""
        return cls(
            module,
            like.new_zeros(0, d_key),
            like.new_zeros(0, d_value),
            like.new_zeros(0),
            like.new_zeros(0, dtype=torch.long),
        )

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self.keys)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, on the CPU, as a file takes them."""
        named = {name: one for name, one in vars(self).items() if name != "module"}
        return {name: one.detach().cpu().contiguous() for name, one in named.items()}

    def to(self, device: torch.device) -> Self:
        """Return the codebook on another device."""
        return replace(
            self,
            keys=self.keys.to(device),
            values=self.values.to(device),
            radii=self.radii.to(device),
            labels=self.labels.to(device),
        )


def label_of(answer: str) -> int:
    """Return a number that two entries share where they are to say the same.

    It is a hash, so that a codebook does not spell out its answers.
    """
    return int.from_bytes(sha256(answer.encode()).digest()[:8], "big", signed=True)


def distances(queries: Tensor, keys: Tensor) -> Tensor:
    """Return Euclidean distances, ``(..., entry)``, formed from differences.

    The quicker way over scalar products would lose those that are small beside the
    norms, on which look-ups depend.
    """
    mode = "donot_use_mm_for_euclid_dist"
    flat = queries.reshape(-1, queries.shape[-1]).to(keys.dtype)
    found = torch.cdist(flat, keys.to(flat.device), compute_mode=mode)
    return found.reshape(*queries.shape[:-1], len(keys))


def looked_up(codebook: Codebook, queries: Tensor, outputs: Tensor) -> Tensor:
    """Return the value of each query's nearest key within its radius, else the output.

    Parameters
    ----------
    codebook : Codebook
        With at least one entry. Gradients flow to its values.
    queries, outputs : Tensor
        What the module reads and puts out, ``(..., d_key)`` and ``(..., d_value)``.

    Returns
    -------
    Tensor
        Of the shape and dtype of ``outputs``, whose bits stay where nothing is found.
    """
    book = codebook.to(queries.device)
    distance, nearest = distances(queries, book.keys).min(dim=-1)
    is_found = distance <= book.radii[nearest]
    values = book.values[nearest].to(outputs)
    return torch.where(is_found[..., None].to(outputs.device), values, outputs)


@contextmanager
def applied_codebook(lm: LanguageModel, codebook: Codebook | None) -> Iterator[None]:
    """Let the codebook answer while the context lasts; no weight is written.

    Raises
    ------
    ConfigurationError
        If the model has no such module, or one of other sizes; with ``None`` and with
        no entries nothing is checked.
    """
    if codebook is None or not len(codebook):
        yield
        return
    book, name = codebook.to(lm.device), codebook.module
    find_module(lm.model, name)
    with trace(lm.model, [name], inputs=True) as seen:

        def answer(outputs: Tensor) -> Tensor:
            _check_sizes(lm, book, seen[name], outputs)
            return looked_up(book, seen[name], outputs)

        with replace_output(lm.model, name, answer):
            yield


@contextmanager
def applied_edit(
    lm: LanguageModel, deltas: Mapping[str, Tensor], codebook: Codebook | None = None
) -> Iterator[None]:
    """Apply all that an edit changes; see `applied_deltas` and `applied_codebook`."""
    with applied_deltas(lm, deltas), applied_codebook(lm, codebook):
        yield


def _check_sizes(
    lm: LanguageModel, book: Codebook, queries: Tensor, outputs: Tensor
) -> None:
    expected = queries.shape[-1], outputs.shape[-1]
    found = book.keys.shape[1], book.values.shape[1]
    if found != expected:
        raise ConfigurationError(
            f"Expected a codebook with keys and values of sizes {expected} for "
            f"{book.module!r} of {lm.name!r}, found {found}. It is another model's."
        )
