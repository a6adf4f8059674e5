"""Run a model over documents and add up its keys, batch by batch, up to a goal."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from flwr_collabedit.editors.key_sums import KeySums
from flwr_collabedit.errors import SecondMomentError
from flwr_collabedit.models.hooks import trace
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.padding import pad_batch
from flwr_collabedit.models.tokens import tokenize

_UNLIMITED = 2**62


@dataclass(frozen=True)
class Goal:
    """When enough is read: after a number of documents, or of tokens.

    Attributes
    ----------
    num_documents : int
        Documents to read; 0 for as many as the tokens take.
    num_tokens : int
        Tokens to read; the document that reaches them is the last one, and read to its
        end, so that the batches do not matter. 0 for as many as there are.
    """

    num_documents: int
    num_tokens: int

    def progress(self, sums: KeySums) -> tuple[int, int]:
        """Return how much is read, and of how much."""
        if self.num_tokens:
            return min(sums.num_tokens, self.num_tokens), self.num_tokens
        return sums.num_documents, self.num_documents

    def left(self, sums: KeySums) -> tuple[int, int]:
        """Return how many documents and tokens are left; at the end one is not > 0."""
        return (
            (self.num_documents or _UNLIMITED) - sums.num_documents,
            (self.num_tokens or _UNLIMITED) - sums.num_tokens,
        )


@torch.no_grad()
def read_keys(
    lm: LanguageModel,
    texts: Iterable[str],
    sums: KeySums,
    goal: Goal,
    *,
    max_length: int,
    dtype: torch.dtype,
    rows_per_batch: int,
) -> Iterator[None]:
    """Add the keys of ``texts`` to ``sums`` up to the goal; give way after each batch.

    Parameters
    ----------
    lm : LanguageModel
        The unedited model.
    texts : iterable of str
        Documents. As many as are in the sums already are passed over: reading them
        costs little beside running a model on them, and ``IterableDataset.skip`` reads
        them too.
    sums : KeySums
        Of the layers that are wanted; changed.
    goal : Goal
        Where to stop.
    max_length : int
        Tokens after which a document is cut.
    dtype : torch.dtype
        Precision in which keys, of whatever the model computes in, enter the sums.
    rows_per_batch : int
        Documents run at once.

    Raises
    ------
    SecondMomentError
        If ``texts`` end before the goal.
    """
    names = {layer: lm.down_projection_name(layer) for layer in sums.moments}
    documents = islice(texts, sums.num_documents, None)
    while min(left := goal.left(sums)) > 0:
        batch = list(islice(documents, min(rows_per_batch, left[0])))
        if not batch:
            raise _too_little(goal, sums)
        rows = [tokenize(lm.tokenizer, text).input_ids[:max_length] for text in batch]
        rows = _up_to(rows, left[1])
        if any(rows):
            keys = _keys(lm, list(names.values()), [row for row in rows if row], dtype)
            by_layer = {layer: keys[name] for layer, name in names.items()}
            sums.add(by_layer, num_documents=len(rows))
        else:
            sums.num_documents += len(rows)
        yield


def _up_to(rows: list[tuple[int, ...]], num_tokens: int) -> list[tuple[int, ...]]:
    """Return the first rows, up to the one that reaches so many tokens."""
    total = 0
    for count, row in enumerate(rows, start=1):
        total += len(row)
        if total >= num_tokens:
            return rows[:count]
    return rows


def _keys(
    lm: LanguageModel,
    names: Sequence[str],
    rows: Sequence[Sequence[int]],
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """Return the modules' inputs at all tokens that are not padding, on one device."""
    batch = pad_batch(rows, lm.pad_token_id).to(lm.device)
    with trace(lm.model, names, inputs=True, stop=True) as keys:
        lm.decoder(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        )
    mask = batch.attention_mask.bool()
    # A layer may be on another device than the first.
    return {
        name: keys[name][mask.to(keys[name].device)].to(lm.device, dtype)
        for name in names
    }


def _too_little(goal: Goal, sums: KeySums) -> SecondMomentError:
    if goal.num_tokens:
        return SecondMomentError(
            f"Expected {goal.num_tokens} tokens, found only {sums.num_tokens} in "
            f"{sums.num_documents} documents. Lower the multiple or give more text."
        )
    return SecondMomentError(
        f"Expected {goal.num_documents} documents, found only {sums.num_documents}. "
        "Lower the number of samples or give more text; what was read is kept."
    )
