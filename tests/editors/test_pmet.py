"""PMET against the published way, written out one edit at a time."""

from itertools import pairwise

import pytest
import torch
from editing import (
    CONTEXTS,
    REQUESTS,
    assert_same,
    double_model,
    plain_targets,
    pmet_config,
)
from plain_pmet import MLP_OUTPUTS, plain_pmet
from test_memit import assert_untouched, second_moments

from flwr_collabedit.data.fact_world import embedded_cases
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.keys import current_values
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.editors.targets import check_model, optimize_targets
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.models.hooks import trace
from flwr_collabedit.models.loading import load_language_model


@pytest.mark.parametrize("stop_divergence", [None, 0.05])
def test_an_answered_edit_weighs_its_answer_less_and_may_stop(stop_divergence):
    # Pico models never give the answer; the embedded one does, with a loose clamp.
    lm = load_language_model("embedded", dtype="float64")
    requests = [case.request for case in embedded_cases(4)]
    settings = pmet_config(
        layers=(0, 1, 2),
        learning_rate=0.5,
        clamp_norm_factor=4.0,
        num_gradient_steps=12,
        answered_nll_factor=0.3,
        stop_divergence=stop_divergence,
    )

    found = optimize_targets(lm, requests, settings, CONTEXTS)

    assert_same(found, plain_targets(lm, settings, requests))
    same_weight = settings.model_copy(update={"answered_nll_factor": 1.0})
    other = optimize_targets(lm, requests, same_weight, CONTEXTS)
    stopped = len(set(found.num_steps.tolist())) > 1
    assert stopped == (stop_divergence is not None)
    assert stopped or not torch.allclose(other.loss, found.loss)


# GPT-J computes attention in float32 whatever the model's type.
@pytest.mark.parametrize(
    ("family", "tolerance"), [("gpt2", 1e-9), ("llama", 1e-9), ("gptj", 1e-6)]
)
def test_pmet_equals_the_algorithm_written_out_plainly(family, tolerance):
    lm, settings = double_model(family), pmet_config(layers=(0, 1))
    moments = second_moments(lm, settings)
    expected = plain_pmet(lm, REQUESTS, settings, CONTEXTS, moments)

    found = MemitEditor(lm, settings, CONTEXTS, moments).edit(REQUESTS).deltas

    assert found.keys() == expected.keys()
    for name, delta in expected.items():
        assert delta.norm() > 1e-3
        assert (found[name] - delta).norm() < tolerance * delta.norm()


def test_current_values_are_what_the_last_edited_mlp_writes():
    lm, request = double_model("gpt2"), REQUESTS[2]  # the subject alone
    name = MLP_OUTPUTS["gpt2"].format(1)
    ids = torch.tensor([lm.tokenizer(request.subject)["input_ids"]])
    with torch.no_grad(), trace(lm.model, [name]) as seen:
        lm.model(ids)

    found = current_values(lm, [request], pmet_config())

    torch.testing.assert_close(found[0], seen[name][0, -1])


def test_pmet_leaves_the_model_bit_identical():
    lm, settings = double_model("gptj"), pmet_config()
    before = [weight.clone() for weight in lm.model.parameters()]

    result = MemitEditor(lm, settings, CONTEXTS, second_moments(lm, settings)).edit(
        REQUESTS
    )

    assert_untouched(lm, before)
    assert result.residual_norms_after.sum() < result.residual_norms_before.sum()


def test_synchronous_sweeps_of_square_root_shares_leave_ever_less():
    lm, settings = double_model("gpt2"), pmet_config(second_moment_weight=1e-2)
    editor = MemitEditor(lm, settings, CONTEXTS, second_moments(lm, settings))

    norms = editor.edit(REQUESTS, sweeps=6).sweep_residual_norms

    assert all(after < before for before, after in pairwise(norms))
    with pytest.raises(ConfigurationError, match=r"'square-root'.*diverge"):
        editor.edit(
            REQUESTS, layer_schedule="frozen", residual_split="square-root", sweeps=2
        )


def test_a_family_with_norms_behind_its_projections_is_refused():
    lm = double_model("gemma2")

    check_model(lm, MemitConfig(layers=(0, 1)))
    with pytest.raises(ConfigurationError, match=r"'gemma2'.*norm behind.*MEMIT"):
        optimize_targets(lm, REQUESTS, pmet_config(), CONTEXTS)
