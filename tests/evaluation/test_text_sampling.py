"""Sampled texts equal a plain loop's, whatever else is in the batch."""

from collections import Counter

import pytest
import torch

from flwr_collabedit.errors import (
    ConfigurationError,
    NonFiniteOutputError,
    RequestFormatError,
)
from flwr_collabedit.evaluation.continuation import continue_greedily
from flwr_collabedit.evaluation.sampling import Draw, pick, sample_continuations
from flwr_collabedit.models.language_model import LanguageModel
from tests.evaluation.constant_model import constant_language_model
from tests.pico import FAMILIES, pico_language_model

PROMPTS = (
    "The capital of France is",
    "I",
    "Because Danielle Darrieux, a native speaker of French, lives in the city of",
)
DRAWS = [Draw(prompt, number) for prompt in PROMPTS for number in range(2)]


def is_among_the_likeliest(lm: LanguageModel, prompt: str, ids: list, k: int) -> bool:
    """Whether each token is one of the k likeliest, the whole text read at once."""
    before = lm.tokenizer(prompt)["input_ids"]
    with torch.no_grad():
        logits = lm.model(torch.tensor([[*before, *ids]])).logits[0].double()
    for place, token in enumerate(ids, start=len(before) - 1):
        # Rounding differs where texts are read token by token.
        if logits[place, token] < logits[place].topk(k).values[-1] - 1e-4:
            return False
    return True


@pytest.mark.parametrize("family", FAMILIES)
def test_every_token_is_drawn_from_the_likeliest(family, monkeypatch):
    lm, seen = pico_language_model(family), []
    monkeypatch.setattr(
        "flwr_collabedit.evaluation.sampling.decode_after",
        lambda lm, prompt_ids, ids: seen.append((prompt_ids, ids)) or str(ids),
    )

    texts = sample_continuations(lm, DRAWS, 8, top_k=3, batch_size=4)

    prompts = {tuple(lm.tokenizer(p)["input_ids"]): p for p in PROMPTS}
    assert len(seen) == 6
    assert all(
        is_among_the_likeliest(lm, prompts[tuple(before)], ids, 3)
        for before, ids in seen
    )
    assert len(set(texts)) == 6


@pytest.mark.parametrize("family", FAMILIES)
def test_one_candidate_is_greedy(family):
    lm = pico_language_model(family)

    texts = sample_continuations(lm, DRAWS[::2], 6, top_k=1, batch_size=2)

    assert texts == continue_greedily(lm, PROMPTS, [6] * 3, batch_size=2)


def test_a_text_does_not_depend_on_the_others():
    lm = pico_language_model("gpt2")

    together = sample_continuations(lm, DRAWS, 6)
    alone = [sample_continuations(lm, [draw], 6)[0] for draw in reversed(DRAWS)]

    assert alone[::-1] == together


def test_seed_number_and_prompt_decide_the_draw():
    lm = constant_language_model({" German": 0.3, " the": 0.3, " of": 0.3})
    draws = [Draw(PROMPTS[0]), Draw(PROMPTS[0], 1), Draw(PROMPTS[1])]

    first = sample_continuations(lm, draws, 30, seed=0)
    torch.manual_seed(1)
    again = sample_continuations(lm, draws, 30, seed=0)
    other = sample_continuations(lm, draws, 30, seed=1)

    assert first == again
    assert len({*first, *other}) == 6


def test_tokens_come_as_often_as_their_share_of_the_likeliest():
    lm = constant_language_model({" German": 0.5, " the": 0.2, " of": 0.1})
    draws = [Draw("I", number) for number in range(40)]

    texts = sample_continuations(lm, draws, 50, top_k=2)

    counts = Counter(word for text in texts for word in text.split())
    assert counts.keys() == {"German", "the"}
    # 2,000 draws of 5/7: standard deviation 0.0101.
    assert counts["German"] / counts.total() == pytest.approx(5 / 7, abs=0.04)


def test_the_end_of_the_text_is_passed_over():
    lm = constant_language_model({"</s>": 0.5, " the": 0.4})

    (text,) = sample_continuations(lm, [Draw("I")], 40, top_k=2)

    assert set(text.split()) == {"the"}
    assert 5 < len(text.split()) < 35


def test_random_state_and_hooks_are_left_alone():
    lm = pico_language_model("gpt2")
    state = torch.get_rng_state()

    sample_continuations(lm, DRAWS, 3)

    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("point", "token"),
    # Of probabilities 0.1, 0.6, 0.3 the best two share [0, 1) as 2 : 1.
    [(0.0, 1), (0.66, 1), (0.67, 2), (0.999999, 2)],
)
def test_a_point_falls_into_the_share_of_a_token(point, token):
    logits = torch.tensor([[0.1, 0.6, 0.3]]).log()

    assert pick(logits, torch.tensor([point], dtype=torch.float64), 2).item() == token


def test_more_candidates_than_tokens_are_all_tokens():
    logits = torch.tensor([[0.1, 0.6, 0.3]]).log()

    assert pick(logits, torch.tensor([0.95]), 10).item() == 0


@pytest.mark.parametrize("numbers", [{"num_tokens": 0}, {"top_k": 0}])
def test_numbers_below_one_are_refused(numbers):
    lm = pico_language_model("gpt2")

    with pytest.raises(ConfigurationError, match="at least 1"):
        sample_continuations(lm, DRAWS, **{"num_tokens": 3, **numbers})


def test_a_text_that_does_not_fit_is_refused():
    with pytest.raises(RequestFormatError, match="ask for fewer tokens"):
        sample_continuations(pico_language_model("gpt2"), DRAWS, 200)


def test_a_broken_model_is_told():
    lm = pico_language_model("gpt2")
    lm.model.transformer.ln_f.weight.data.fill_(float("nan"))

    with pytest.raises(NonFiniteOutputError, match="take the edit back"):
        sample_continuations(lm, DRAWS, 3)
