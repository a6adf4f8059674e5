"""A model over several devices is edited and scored as one on a single device."""

from collections.abc import Iterator

import pytest
import torch
from editing import CONTEXTS, REQUESTS, config, double_model, pmet_config
from pretend_devices import DEVICES, pretend_devices, spread

from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import generate_contexts
from flwr_collabedit.editors.memit import MemitEditor, MemitResult
from flwr_collabedit.evaluation.divergence import next_token_distributions
from flwr_collabedit.evaluation.perplexity import perplexity
from flwr_collabedit.evaluation.scoring import score_cases
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import applied_deltas, weight_shapes

CASES = [
    EvaluationCase(request=request, target_true="Berlin") for request in REQUESTS[:3]
]
TEXTS = ["The capital of France is Paris.", "Norway belongs to Europe."]


def model(family: str) -> LanguageModel:
    # transformers' softmax is float32: in float64 a token whose window holds nothing
    # but padding would be masked by -inf.
    return double_model(family, **{"gemma2": {"sliding_window": 64}}.get(family, {}))


@pytest.fixture
def devices() -> Iterator[None]:
    with pretend_devices():
        yield


def edited(lm: LanguageModel, settings: MemitConfig) -> MemitResult:
    moments = {
        name: torch.eye(d_key, dtype=torch.float64, device=lm.device)
        for name, (_, d_key) in weight_shapes(lm, settings.layers).items()
    }
    return MemitEditor(lm, settings, CONTEXTS, moments).edit(REQUESTS[:3])


@pytest.mark.parametrize(
    ("family", "first_upper"),
    # The second device from the last edited block on, and from the block above it.
    [("gpt2", 1), ("gptj", 1), ("gptj", 2), ("llama", 1), ("gemma2", 1)],
)
def test_an_edit_is_the_same_on_two_devices(family: str, first_upper: int) -> None:
    settings = config(num_gradient_steps=2)
    expected = edited(model(family), settings)

    with pretend_devices():
        lm = spread(model(family), first_upper=first_upper)
        found = edited(lm, settings)

        assert {one.device for one in lm.model.parameters()} == set(DEVICES)
        assert lm.device == DEVICES[0]
        assert {one.device for one in found.deltas.values()} == {DEVICES[0]}
        for name, delta in expected.deltas.items():
            torch.testing.assert_close(found.deltas[name].cpu(), delta)


@pytest.mark.parametrize("family", ["gpt2", "gptj"])
def test_a_pmet_edit_is_the_same_on_two_devices(family: str) -> None:
    settings = pmet_config(num_gradient_steps=2)
    expected = edited(model(family), settings)

    with pretend_devices():
        found = edited(spread(model(family), first_upper=1), settings)

        for name, delta in expected.deltas.items():
            torch.testing.assert_close(found.deltas[name].cpu(), delta)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_scores_are_the_same_on_two_devices(family: str) -> None:
    plain = model(family)
    scores = [score.metrics() for score in score_cases(plain, CASES)]
    after = next_token_distributions(plain, TEXTS)
    contexts = generate_contexts(plain, starters=["The"], length=4)

    with pretend_devices():
        lm = spread(model(family), first_upper=2)

        found = [score.metrics() for score in score_cases(lm, CASES)]
        assert found == [pytest.approx(one) for one in scores]
        torch.testing.assert_close(next_token_distributions(lm, TEXTS), after)
        assert perplexity(lm, TEXTS) == pytest.approx(perplexity(plain, TEXTS))
        assert generate_contexts(lm, starters=["The"], length=4) == contexts


def test_a_delta_may_be_on_another_device_than_its_weight(devices: None) -> None:
    lm = spread(model("llama"), first_upper=1)
    name = lm.weight_name(1)
    weight = lm.model.get_parameter(name)
    before = weight.detach().cpu().clone()

    with applied_deltas(lm, {name: torch.ones(32, 64, device=lm.device)}):
        assert weight.device == DEVICES[1]
        torch.testing.assert_close(weight.detach().cpu(), before + 1)

    assert torch.equal(weight.detach().cpu(), before)
