"""Training rows: token ids, loss weights and where the subjects are."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from flwr_collabedit.data.facts import Fact

_CUT_SHARE = 0.3


@dataclass(frozen=True)
class Sentence:
    """One tokenized training sentence; subject and answer are half-open spans."""

    ids: tuple[int, ...]
    subject: tuple[int, int]
    answer: tuple[int, int]


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right.

    Attributes
    ----------
    ids : Tensor
        Shape ``(row, position)``, int64.
    loss_weight : Tensor
        Weight of each token as a prediction, same shape, float32; 0 at padding.
    subject_number : Tensor
        0 outside subjects, else which subject of the row the token belongs to.
    """

    ids: Tensor
    loss_weight: Tensor
    subject_number: Tensor


def tokenize_facts(
    tokenizer: PreTrainedTokenizerFast, facts: Sequence[Fact]
) -> list[Sentence]:
    """Return every fact in each of its trained templates."""
    pairs = [(fact, template) for fact in facts for template in fact.templates]
    encoded = tokenizer(
        [fact.sentence(template) for fact, template in pairs],
        return_offsets_mapping=True,
    )
    sentences = []
    for (fact, template), ids, offsets in zip(
        pairs, encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        subject_start = template.index("{}")
        answer_start = len(fact.prompt(template)) + 1
        spans = [
            _token_span(offsets, start, start + len(text))
            for start, text in (
                (subject_start, fact.subject),
                (answer_start, fact.answer),
            )
        ]
        sentences.append(Sentence(tuple(ids), spans[0], spans[1]))
    return sentences


def _token_span(
    offsets: Sequence[tuple[int, int]], start: int, stop: int
) -> tuple[int, int]:
    inside = [i for i, (a, b) in enumerate(offsets) if a < stop and b > start]
    return inside[0], inside[-1] + 1


class BatchStream:
    """Endless batches of about ``num_tokens`` tokens, deterministic from ``seed``.

    Three batches of four hold rows of one sentence. The fourth holds rows of two to
    four, of which all but the last may be cut short: what comes before a prompt in
    use (generated context templates) is not always a whole sentence.
    """

    def __init__(
        self,
        sentences: Sequence[Sentence],
        *,
        num_tokens: int,
        other_weight: float,
        seed: int,
    ) -> None:
        self._rng = random.Random(seed)
        self._sentences = self._shuffled(sentences)
        self._num_tokens = num_tokens
        self._other_weight = other_weight

    def batch(self, step: int) -> Batch:
        """Return the batch of training step ``step``."""
        rows: list[list[Sentence]] = []
        size = 0
        while size < self._num_tokens:
            count = self._rng.randint(2, 4) if step % 4 == 0 else 1
            rows.append([next(self._sentences) for _ in range(count)])
            size += sum(len(sentence.ids) for sentence in rows[-1])
        return self._padded(rows)

    def _shuffled(self, sentences: Sequence[Sentence]) -> Iterator[Sentence]:
        order = list(sentences)
        while True:
            self._rng.shuffle(order)
            yield from order

    def _padded(self, rows: list[list[Sentence]]) -> Batch:
        width = max(sum(len(sentence.ids) for sentence in row) for row in rows)
        shape = (len(rows), width)
        ids = torch.zeros(shape, dtype=torch.int64)
        weight, subject = torch.zeros(shape), torch.zeros(shape, dtype=torch.int64)
        for i, row in enumerate(rows):
            start = 0
            for number, sentence in enumerate(row, start=1):
                is_last = number == len(row)
                length = self._kept_length(sentence, is_last=is_last)
                stop = start + length
                kept = (*sentence.ids[: length - 1], sentence.ids[-1])
                ids[i, start:stop] = torch.tensor(kept)
                subject[i, start:stop][slice(*sentence.subject)] = number
                if length == len(sentence.ids):
                    weight[i, start:stop] = self._other_weight
                    weight[i, start:stop][slice(*sentence.answer)] = 1.0
                start = stop
        return Batch(ids, weight, subject)

    def _kept_length(self, sentence: Sentence, *, is_last: bool) -> int:
        """Return how many tokens stay; a cut sentence keeps its full stop."""
        if is_last or self._rng.random() > _CUT_SHARE:
            return len(sentence.ids)
        return self._rng.randint(3, len(sentence.ids) - 1)
