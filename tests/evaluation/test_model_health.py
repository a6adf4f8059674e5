"""Divergence from the base model, sizes of weights, and perplexity with them."""

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from flwr_collabedit.data.fact_world import embedded_cases
from flwr_collabedit.data.held_out import (
    embedded_held_out_texts,
    embedded_neutral_prompts,
)
from flwr_collabedit.errors import NonFiniteOutputError, RequestFormatError
from flwr_collabedit.evaluation.divergence import kl_to_base, next_token_distributions
from flwr_collabedit.evaluation.model_health import (
    KL_TO_BASE,
    HealthProbe,
    mean_abs_deltas,
    mean_abs_weights,
)
from flwr_collabedit.evaluation.perplexity import TEXT_LOSS, perplexity, perplexity_of
from flwr_collabedit.models.loading import load_language_model
from flwr_collabedit.models.weights import applied_deltas
from tests.evaluation.constant_model import constant_language_model
from tests.pico import FAMILIES, pico_language_model

PROMPTS = ["The capital of France is", "Japan is in", "What sport does LeBron James"]


def delta_of(lm, layer=1, *, scale=0.05):
    name = lm.weight_name(layer)
    shape = (lm.hidden_size, lm.model.get_parameter(name).numel() // lm.hidden_size)
    return {name: scale * torch.randn(shape, dtype=torch.float64)}


@pytest.mark.parametrize("family", FAMILIES)
def test_distributions_are_the_models_own_after_each_prompt(family):
    lm = pico_language_model(family)

    found = next_token_distributions(lm, PROMPTS, batch_size=2)

    for prompt, row in zip(PROMPTS, found, strict=True):
        ids = torch.tensor([lm.tokenizer(prompt)["input_ids"]])
        expected = lm.model(ids).logits[0, -1].log_softmax(0)
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-5)


def test_divergence_is_that_of_torch_from_base_to_edited():
    lm = pico_language_model("gpt2", dtype=torch.float64)
    base = next_token_distributions(lm, PROMPTS)
    with applied_deltas(lm, delta_of(lm, scale=0.5)):
        now = next_token_distributions(lm, PROMPTS)

    found = kl_to_base(base, now)

    expected = kl_divergence(Categorical(logits=base), Categorical(logits=now))
    backwards = kl_divergence(Categorical(logits=now), Categorical(logits=base))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert (found / backwards - 1).abs().min() > 1e-3


def test_divergence_by_hand_in_nats():
    base = torch.tensor([[0.5, 0.25, 0.25]]).log()
    now = torch.tensor([[0.25, 0.5, 0.25]]).log()

    # 1/2 ln 2 + 1/4 ln 1/2 + 0 = 1/4 ln 2
    assert kl_to_base(base, now).tolist() == pytest.approx([0.1732867951], rel=1e-6)


def test_without_a_delta_the_divergence_is_zero():
    lm = pico_language_model("llama")
    base = next_token_distributions(lm, PROMPTS)
    zero = {name: 0 * delta for name, delta in delta_of(lm).items()}

    with applied_deltas(lm, zero):
        now = next_token_distributions(lm, PROMPTS)

    assert kl_to_base(base, now).tolist() == [0.0, 0.0, 0.0]


def test_a_divergence_below_the_rounding_of_float32_is_still_seen():
    base = torch.randn(1, 50_000, generator=torch.Generator().manual_seed(1))
    base = base.log_softmax(-1)
    now = base.clone()
    now[0, :25_000] += 1e-3

    # To second order Var_p(change) / 2, here 1e-6 p (1 - p) / 2 of the changed half.
    (half,) = base.double().softmax(-1)[:, :25_000].sum(-1).tolist()
    (found,) = kl_to_base(base, now).tolist()

    assert found == pytest.approx(1e-6 * half * (1 - half) / 2, rel=1e-2)


def test_no_prompts_give_no_distributions():
    lm = pico_language_model("gpt2")

    found = next_token_distributions(lm, [])

    assert found.shape == (0, len(lm.tokenizer))


def test_prompts_that_do_not_fit_are_refused():
    lm = pico_language_model("gpt2")

    with pytest.raises(RequestFormatError, match="reads 1 to 128"):
        next_token_distributions(lm, ["Paris " * 200])
    with pytest.raises(RequestFormatError, match="has 0 tokens"):
        next_token_distributions(lm, [""])


def test_a_destroyed_model_has_no_distribution():
    lm = constant_language_model({" the": 0.5})
    lm.model.lm_head.bias.data[0] = float("inf")

    with pytest.raises(NonFiniteOutputError, match="neutral prompts"):
        next_token_distributions(lm, PROMPTS)


def test_the_probe_measures_what_its_parts_do_and_base_is_free_of_divergence():
    lm = pico_language_model("gpt2")
    texts = ["The capital of France is Paris.", "Japan is in Asia."]
    probe = HealthProbe.of(lm, texts, PROMPTS)
    before = probe.measure(lm)

    with applied_deltas(lm, delta_of(lm, scale=0.5)):
        after = probe.measure(lm, batch_size=1)
        now = next_token_distributions(lm, PROMPTS)
        expected = perplexity(lm, texts)

    assert before.totals[KL_TO_BASE] == (0.0, 3)
    assert after.totals[KL_TO_BASE][1] == 3
    divergence = kl_to_base(probe.base, now).mean().item()
    assert after.mean(KL_TO_BASE) == pytest.approx(divergence, rel=1e-4)
    assert perplexity_of(after) == pytest.approx(expected, rel=1e-6)
    assert perplexity_of(before) != pytest.approx(expected, rel=1e-3)


def test_a_probe_of_texts_alone_has_no_divergence():
    lm = pico_language_model("gpt2")

    sums = HealthProbe.of(lm, ["Japan is in Asia."], []).measure(lm)

    assert list(sums.totals) == [TEXT_LOSS]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_mean_abs_is_over_entries_of_the_edited_weight(family):
    lm = pico_language_model(family)
    deltas = delta_of(lm)
    (name,) = deltas
    weight = lm.model.get_parameter(name)
    sign = (weight.T if family == "gpt2" else weight).sign()
    before = mean_abs_weights(lm, deltas)

    with applied_deltas(lm, {name: 0.5 * sign}):
        after = mean_abs_weights(lm, deltas)

    assert before[name] == pytest.approx(weight.abs().mean().item(), rel=1e-5)
    assert after[name] == pytest.approx(before[name] + 0.5, rel=1e-5)
    assert mean_abs_deltas({name: -0.5 * sign}) == {name: 0.5}


def test_on_the_embedded_model_damage_shows_and_grows_with_it():
    lm = load_language_model("embedded")
    cases = embedded_cases(3)
    edited = {case.request.subject for case in cases}
    probe = HealthProbe.of(
        lm,
        embedded_held_out_texts(60, exclude=edited),
        embedded_neutral_prompts(60, exclude=edited),
    )
    base = probe.measure(lm)
    noise = delta_of(lm)

    measured = []
    for scale in (1.0, 4.0):
        with applied_deltas(lm, {n: scale * delta for n, delta in noise.items()}):
            measured.append(probe.measure(lm))

    small, large = measured
    assert base.mean(KL_TO_BASE) == 0
    assert 0 < small.mean(KL_TO_BASE) < large.mean(KL_TO_BASE)
    assert perplexity_of(base) < perplexity_of(small) < perplexity_of(large)
