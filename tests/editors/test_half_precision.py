"""Edits of models in half precision: targets in float32, sums in float64.

The oracle is the same model in float32: its weights are those of the half-precision
model, bit for bit, so that only what is computed with them differs.
"""

import pytest
import torch
from editing import CONTEXTS, REQUESTS, config, pmet_config
from pico import pico_language_model
from torch import Tensor
from torch.linalg import vector_norm

from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.keys import collect_keys
from flwr_collabedit.editors.memit import MemitEditor, MemitResult
from flwr_collabedit.editors.residuals import clamp_fractions, relative_residuals
from flwr_collabedit.editors.target_loss import plus
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import applied_deltas, weight_shapes

HALVES = [torch.bfloat16, torch.float16]
SETTINGS = [config(), pmet_config()]


def edited(lm: LanguageModel, settings: MemitConfig) -> MemitResult:
    moments = {
        name: torch.eye(d_key, dtype=torch.float64)
        for name, (_, d_key) in weight_shapes(lm, settings.layers).items()
    }
    return MemitEditor(lm, settings, CONTEXTS, moments).edit(REQUESTS[:3])


def in_float32(family: str, dtype: torch.dtype) -> LanguageModel:
    lm = pico_language_model(family, dtype=dtype)
    lm.model.float()
    return lm


def bits(lm: LanguageModel) -> list[Tensor]:
    return [one.detach().view(torch.int16).clone() for one in lm.model.parameters()]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda one: one.editor)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("family", ["gpt2", "gptj", "llama"])
def test_an_edit_is_near_that_of_the_float32_model(
    family: str, dtype: torch.dtype, settings: MemitConfig
) -> None:
    lm = pico_language_model(family, dtype=dtype)
    before = bits(lm)

    found = edited(lm, settings)

    expected = edited(in_float32(family, dtype), settings)
    near = 10 * torch.finfo(dtype).eps
    for name, delta in found.deltas.items():
        assert delta.dtype == torch.float64
        assert vector_norm(delta - expected.deltas[name]) < near * vector_norm(delta)
    moved = expected.targets.z - expected.targets.initial
    off = vector_norm(found.targets.z - expected.targets.z)
    assert off < near * vector_norm(moved)
    assert found.targets.z.dtype == found.targets.loss.dtype == torch.float32
    assert lm.dtype == dtype
    assert all(map(torch.equal, bits(lm), before))


@pytest.mark.parametrize("dtype", HALVES)
def test_a_written_edit_leaves_less_to_write(dtype: torch.dtype) -> None:
    lm, settings = pico_language_model("llama", dtype=dtype), config()

    result = edited(lm, settings)

    with applied_deltas(lm, result.deltas):
        left = relative_residuals(lm, REQUESTS[:3], result.targets, settings)
    assert left.dtype == torch.float64
    expected = edited(in_float32("llama", dtype), settings)
    ratio = expected.residual_norms_after / expected.residual_norms_before
    torch.testing.assert_close(left, ratio, atol=0.05, rtol=0)
    assert left.max() < 0.9
    fractions = clamp_fractions(result.targets, settings)
    assert fractions.dtype == torch.float64
    assert fractions.max() <= 1 + 1e-6


@pytest.mark.parametrize("dtype", HALVES)
def test_keys_are_averaged_in_float64(dtype: torch.dtype) -> None:
    lm = pico_language_model("gpt2", dtype=dtype)
    [bare] = collect_keys(lm, REQUESTS[:1], [0], ContextTemplates()).values()

    [keys] = collect_keys(lm, REQUESTS[:1], [0], CONTEXTS).values()

    assert keys.dtype == torch.float64
    # A mean of half-precision keys has more digits than half precision holds.
    assert not torch.equal(keys.to(dtype).double(), keys)
    assert torch.equal(bare.to(dtype).double(), bare)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_small_delta_is_rounded_once(dtype: torch.dtype) -> None:
    eps = torch.finfo(dtype).eps
    state = torch.ones(1, dtype=dtype)
    # A little more than half a step above 1: up. Rounded first, it is a tie: down.
    delta = torch.tensor([eps / 2 + eps / 2**11 / 2])

    found = plus(state, delta)

    assert found.dtype == dtype
    assert found.item() == 1 + eps
    assert (state + delta.to(dtype)).item() == 1
