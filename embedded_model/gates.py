"""What a trained model must pass before it is shipped."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from flwr_collabedit.data.facts import Fact, FactWorld

_BATCH = 512


@dataclass(frozen=True)
class GateFigures:
    """Shares between 0 and 1; ``trace_*`` with the subject's state swapped."""

    recall_trained: float
    recall_held_out: float
    trace_donor: float
    trace_own: float

    def failures(self) -> list[str]:
        """Return one sentence for each gate that is not passed."""
        gates = {
            "recall on trained templates >= 0.99": self.recall_trained >= 0.99,
            "recall on held-out templates >= 0.95": self.recall_held_out >= 0.95,
            "the donor's answer wins in >= 0.80": self.trace_donor >= 0.80,
            "the own answer stays in <= 0.10": self.trace_own <= 0.10,
        }
        return [gate for gate, passed in gates.items() if not passed]


def measure_gates(
    network: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    world: FactWorld,
    *,
    last_edited_layer: int,
    num_traces: int = 1000,
) -> GateFigures:
    """Measure all gates on the network's own forward pass, with nothing blocked."""
    trained = [(fact, text) for fact in world.facts for text in fact.templates]
    held_out = [(fact, text) for fact in world.facts for text in fact.held_out]
    donor, own = trace(network, tokenizer, world, last_edited_layer, num_traces)
    return GateFigures(
        recall_trained=recall(network, tokenizer, trained),
        recall_held_out=recall(network, tokenizer, held_out),
        trace_donor=donor,
        trace_own=own,
    )


@torch.inference_mode()
def recall(
    network: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    questions: Sequence[tuple[Fact, str]],
) -> float:
    """Return the share of questions answered with every token of the answer."""
    num_right = 0
    for start in range(0, len(questions), _BATCH):
        chunk = questions[start : start + _BATCH]
        ids = _padded(tokenizer, [fact.sentence(text) for fact, text in chunk])
        prompt_lengths = _lengths(
            tokenizer, [fact.prompt(text) for fact, text in chunk]
        )
        answer_lengths = _lengths(tokenizer, [fact.answer for fact, _ in chunk])
        right = network(ids).logits[:, :-1].argmax(-1) == ids[:, 1:]
        position = torch.arange(1, ids.shape[1])
        is_answer = (position >= prompt_lengths[:, None]) & (
            position < (prompt_lengths + answer_lengths)[:, None]
        )
        num_right += int((right | ~is_answer).all(dim=1).sum())
    return num_right / len(questions)


@torch.inference_mode()
def trace(
    network: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    world: FactWorld,
    layer: int,
    num_facts: int,
) -> tuple[float, float]:
    """Return how often a swapped state gives the donor's answer, and the own one.

    The output of block ``layer`` at the subject's last token is replaced by what it
    is for another subject of the same relation with another answer, asked with the
    same template; answers are told apart by their first token.
    """
    rng = random.Random(0)
    pairs = [
        (fact, _donor(world, fact, rng))
        for fact in rng.choices(world.facts, k=num_facts)
    ]
    templates = [rng.choice(fact.templates) for fact, _ in pairs]
    rows = [
        [pair[side].prompt(text) for pair, text in zip(pairs, templates, strict=True)]
        for side in (0, 1)
    ]
    subject_last = [
        _subject_last(tokenizer, [pair[side] for pair in pairs], templates)
        for side in (0, 1)
    ]
    index = torch.arange(num_facts)
    states = network(_padded(tokenizer, rows[1]), output_hidden_states=True)
    donor_state = states.hidden_states[layer + 1][index, subject_last[1]]

    def swap(module: object, inputs: object, output: Tensor) -> Tensor:
        swapped = output.clone()
        swapped[index, subject_last[0]] = donor_state
        return swapped

    handle = network.transformer.h[layer].register_forward_hook(swap)
    try:
        logits = network(_padded(tokenizer, rows[0])).logits
    finally:
        handle.remove()
    said = logits[index, _lengths(tokenizer, rows[0]) - 1].argmax(-1)
    own, donor = (
        torch.tensor([tokenizer(pair[side].answer)["input_ids"][0] for pair in pairs])
        for side in (0, 1)
    )
    return float((said == donor).float().mean()), float((said == own).float().mean())


def _donor(world: FactWorld, fact: Fact, rng: random.Random) -> Fact:
    first_word = fact.answer.split()[0]
    return rng.choice(
        [
            other
            for other in world.facts
            if other.relation == fact.relation and other.answer.split()[0] != first_word
        ]
    )


def _padded(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> Tensor:
    """Return right-padded ids; under causal attention padding changes nothing."""
    ids: Tensor = tokenizer(list(texts), padding=True, return_tensors="pt")["input_ids"]
    return ids


def _lengths(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> Tensor:
    return torch.tensor([len(ids) for ids in tokenizer(list(texts))["input_ids"]])


def _subject_last(
    tokenizer: PreTrainedTokenizerFast, facts: Sequence[Fact], templates: Sequence[str]
) -> Tensor:
    beginnings = [
        text[: text.index("{}")] + fact.subject
        for fact, text in zip(facts, templates, strict=True)
    ]
    return _lengths(tokenizer, beginnings) - 1
