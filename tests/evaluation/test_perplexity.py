"""Perplexity equals a plain loop and transformers' own loss, and adds over clients."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flwr_collabedit.errors import ConfigurationError, NonFiniteOutputError
from flwr_collabedit.evaluation.metrics import MetricSums
from flwr_collabedit.evaluation.perplexity import (
    TEXT_LOSS,
    perplexity,
    perplexity_of,
    text_loss,
)
from flwr_collabedit.evaluation.windows import windows
from tests.evaluation.constant_model import constant_language_model
from tests.pico import FAMILIES, pico_language_model

TEXTS = [
    "The capital of France is Paris.",
    "Berlin",
    "You know that Steve Jobs founded Apple Inc. in California in 1976, of course.",
    "Norway belongs to the continent of Europe; Japan is in Asia.",
]
LONG = " ".join(TEXTS * 8)


def total(sums: MetricSums) -> tuple[float, int]:
    return sums.totals[TEXT_LOSS]


@pytest.mark.parametrize("family", FAMILIES)
def test_batched_loss_equals_transformers_own_loss_of_each_text(family):
    lm = pico_language_model(family)
    expected, count = 0.0, 0
    for text in TEXTS:
        ids = torch.tensor([lm.tokenizer(text)["input_ids"]])
        mean = lm.model(ids, labels=ids).loss.item()
        expected += mean * (ids.shape[1] - 1)
        count += ids.shape[1] - 1

    loss, found = total(text_loss(lm, TEXTS, batch_size=3))

    assert found == count
    assert loss == pytest.approx(expected, rel=1e-5)


def test_perplexity_equals_a_loop_over_the_tokens_of_one_text():
    lm = pico_language_model("gpt2", dtype=torch.float64)
    (text,) = TEXTS[2:3]
    ids = lm.tokenizer(text)["input_ids"]
    losses = [
        -lm.model(torch.tensor([ids[:end]])).logits[0, -1].log_softmax(0)[ids[end]]
        for end in range(1, len(ids))
    ]

    found = perplexity(lm, [text])

    assert found == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-9)


def test_a_known_model_has_the_perplexity_of_its_probabilities():
    lm = constant_language_model({" the": 0.5, " German": 0.125})

    # The first " the" is given. Loss ln 2 + ln 8 + ln 2, that is 5/3 ln 2 a token.
    found = perplexity(lm, [" the the German the"])

    assert found == pytest.approx(2 ** (5 / 3), rel=1e-5)


def test_the_mean_is_over_tokens_and_clients_add_to_the_last_bit():
    lm = pico_language_model("gpt2")
    clients = [text_loss(lm, part) for part in (TEXTS[:1], TEXTS[1:], [])]
    sent = [MetricSums.from_flat(sums.to_flat()) for sums in clients]

    merged = MetricSums.merge(sent)

    assert total(merged)[1] == sum(len(lm.tokenizer(t)["input_ids"]) - 1 for t in TEXTS)
    assert total(merged)[0] == sum(total(sums)[0] for sums in sent[:2])
    assert perplexity_of(merged) == pytest.approx(perplexity(lm, TEXTS), rel=1e-6)
    assert perplexity_of(merged) == perplexity_of(MetricSums.merge(reversed(sent)))


def test_a_long_text_is_read_in_windows_that_predict_each_token_once():
    lm = pico_language_model("gpt2")
    ids = lm.tokenizer(LONG)["input_ids"]
    expected = 0.0
    end, start = 0, 0
    while end < len(ids):  # by hand: windows of 128, the first 64 seen before
        end = min(start + 128, len(ids))
        row = torch.tensor([ids[start:end]])
        log_p = lm.model(row).logits[0].log_softmax(-1)
        first = 1 if start == 0 else 64
        for place in range(first, end - start):
            expected -= log_p[place - 1, ids[start + place]].item()
        start += 64

    loss, count = total(text_loss(lm, [LONG]))

    assert len(ids) > 3 * 128
    assert count == len(ids) - 1
    assert loss == pytest.approx(expected, rel=1e-5)


def test_more_overlap_gives_tokens_more_to_go_by():
    lm = pico_language_model("gpt2", dtype=torch.float64)
    ids = lm.tokenizer(TEXTS[2])["input_ids"]
    log_p = [
        lm.model(torch.tensor([ids[max(0, end - 3) : end]]))
        .logits[0, -1]
        .log_softmax(0)
        for end in range(1, len(ids))
    ]
    expected = -sum(p[i].item() for p, i in zip(log_p, ids[1:], strict=True))

    loss, _ = total(text_loss(lm, [TEXTS[2]], window=4, overlap=3))

    assert loss == pytest.approx(expected, rel=1e-9)


@given(
    length=st.integers(0, 60),
    width=st.integers(2, 12),
    data=st.data(),
)
def test_windows_cover_every_token_but_the_first_once(length, width, data):
    overlap = data.draw(st.integers(1, width - 1))

    found = windows(range(length), width, overlap)

    predicted = [i for w in found for i in w.input_ids[w.first_predicted :]]
    assert predicted == list(range(1, length))
    assert all(len(w.input_ids) <= width and w.num_predicted > 0 for w in found)
    assert all(w.first_predicted == overlap for w in found[1:])


def test_texts_without_a_second_token_have_no_perplexity():
    lm = pico_language_model("gpt2")

    assert perplexity(lm, []) is None
    assert perplexity(lm, ["", "a"]) is None


def test_a_loss_beyond_floats_is_an_infinite_perplexity():
    assert perplexity_of(MetricSums({TEXT_LOSS: (1e6, 10)})) == math.inf


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 129}, "at most the 128 positions"),
        ({"window": 1}, "window 1"),
        ({"window": 8, "overlap": 8}, "overlap 8"),
        ({"window": 8, "overlap": 0}, "overlap 0"),
    ],
    ids=["beyond positions", "too narrow", "never ends", "no context"],
)
def test_impossible_windows_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        text_loss(pico_language_model("gpt2"), TEXTS, **options)


def test_a_destroyed_model_has_no_number():
    lm = constant_language_model({" the": 0.5})
    lm.model.lm_head.bias.data[0] = float("nan")

    with pytest.raises(NonFiniteOutputError, match="take the edit back"):
        perplexity(lm, TEXTS)
