import math

import pytest
import torch
from pico import FAMILIES, pico_language_model

from flwr_collabedit.errors import RequestFormatError
from flwr_collabedit.evaluation.answers import answer, target_probabilities
from flwr_collabedit.evaluation.continuation import continue_greedily
from flwr_collabedit.models.loading import load_language_model
from flwr_collabedit.models.tokens import tokenize

PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def embedded():
    return load_language_model("embedded")


def test_the_embedded_model_knows_a_capital(embedded):
    found = answer(embedded, PROMPT)

    assert found.text == "Paris"
    assert found.probability > 0.9
    assert found.next_tokens[0][0].startswith("P")
    assert found.probability == pytest.approx(
        target_probabilities(embedded, PROMPT, ["Paris"])["Paris"], rel=1e-4
    )


@pytest.mark.parametrize("prompt", ["", "word " * 600])
def test_a_prompt_that_cannot_be_answered_is_refused(embedded, prompt):
    with pytest.raises(RequestFormatError, match=r"prompt of 1 to \d+ tokens"):
        answer(embedded, prompt)


def test_an_empty_target_is_refused(embedded):
    with pytest.raises(RequestFormatError, match="a word or more"):
        target_probabilities(embedded, PROMPT, ["Rome", " "])


def test_no_more_first_tokens_are_named_than_there_are():
    lm = pico_language_model("gpt2")

    found = answer(lm, PROMPT, max_tokens=1, top=10**6)

    size = lm.logits(torch.zeros(lm.model.config.hidden_size)).numel()
    assert 1 < len(found.next_tokens) <= size


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_is_the_beginning_of_the_greedy_continuation(family):
    lm = pico_language_model(family)

    found = answer(lm, PROMPT, max_tokens=6)

    (whole,) = continue_greedily(lm, [PROMPT], [6])
    assert whole.strip().startswith(found.text)
    assert 0 < found.probability <= 1


def test_probabilities_are_products_over_tokens_by_the_plain_way():
    lm = pico_language_model("gpt2")
    row = tokenize(lm.tokenizer, PROMPT, target="Paris in Europe")
    ids = torch.tensor([row.input_ids])
    logs = lm.model(ids).logits[0].double().log_softmax(-1)
    expected = sum(
        float(logs[place - 1, ids[0, place]])
        for place in range(row.target_start, len(row.input_ids))
    )

    found = target_probabilities(lm, PROMPT, ["Paris in Europe", "Rome"])

    assert found["Paris in Europe"] == pytest.approx(math.exp(expected), rel=1e-4)
    assert found["Rome"] != found["Paris in Europe"]


def test_the_first_tokens_are_the_models_own():
    lm = pico_language_model("gpt2")
    ids = torch.tensor([tokenize(lm.tokenizer, PROMPT).input_ids])
    best = lm.model(ids).logits[0, -1].double().softmax(0).topk(4).values

    found = answer(lm, PROMPT, max_tokens=1, top=4)

    assert [p for _, p in found.next_tokens] == pytest.approx(best.tolist(), rel=1e-4)
