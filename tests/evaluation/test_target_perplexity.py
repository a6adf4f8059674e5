"""Target perplexity by hand, and against one text at a time."""

import math

import pytest
import torch

from flwr_collabedit.data.fact_world import default_world, embedded_cases
from flwr_collabedit.data.question_types import ask_as
from flwr_collabedit.data.question_wording import WORDINGS
from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import generate_contexts
from flwr_collabedit.editors.keys import collect_keys
from flwr_collabedit.evaluation.target_perplexity import target_perplexities
from flwr_collabedit.models.loading import EMBEDDED_MODEL, load_language_model
from tests.evaluation.constant_model import constant_language_model
from tests.pico import pico_language_model


def request(target: str, case_id: int = 0) -> EditRequest:
    return EditRequest(
        case_id=case_id,
        prompt="The capital of {} is",
        subject="France",
        target_new=target,
    )


def test_perplexity_is_the_geometric_mean_of_the_inverse_probabilities():
    lm = constant_language_model({" the": 0.5, " German": 0.125})

    one, two = target_perplexities(lm, [request("the German"), request("German")])

    assert one.perplexity == pytest.approx(4.0, rel=1e-5)
    assert two.perplexity == pytest.approx(8.0, rel=1e-5)
    assert (one.target_tokens, two.target_tokens) == (2, 1)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_perplexity_and_lengths_equal_those_of_one_text_at_a_time(family):
    lm = pico_language_model(family)
    targets = ["Rome", "Hamburg, of course", "Apple Inc."]

    found = target_perplexities(lm, [request(t) for t in targets], batch_size=2)

    for target, each in zip(targets, found, strict=True):
        prompt = lm.tokenizer("The capital of France is")["input_ids"]
        ids = torch.tensor(
            [lm.tokenizer(f"The capital of France is {target}").input_ids]
        )
        labels = ids.clone()
        labels[:, : len(prompt)] = -100
        loss = lm.model(ids, labels=labels).loss.item()
        assert each.perplexity == pytest.approx(math.exp(loss), rel=1e-4)
        assert each.prompt_tokens == len(prompt)
        assert each.target_tokens == ids.shape[1] - len(prompt)


def test_on_the_embedded_model_questions_fit_and_share_their_key():
    lm = load_language_model("embedded")
    memit = MemitConfig.from_published(EMBEDDED_MODEL / "edit.json")
    contexts = generate_contexts(lm)
    cases = embedded_cases(20, subjects="all")

    keys = []
    for kind in ("direct-generation", "multiple-choice", "true-false"):
        asked = [
            ask_as(
                case,
                kind,
                default_world().answers[case.request.relation_id],
                wording=WORDINGS["numbers"],
            ).request
            for case in cases
        ]
        keys.append(collect_keys(lm, asked, memit.layers, contexts))
        lengths = {each.target_tokens for each in target_perplexities(lm, asked)}
        assert kind == "direct-generation" or lengths == {1}

    direct, choice, truth = keys
    for layer in memit.layers:
        torch.testing.assert_close(choice[layer], direct[layer])
        torch.testing.assert_close(truth[layer], direct[layer])
