"""The client: what it refuses, what it keeps, and that it leaves the model alone."""

import copy

import numpy as np
import pytest
import torch
from asking import MEMIT, instruction, zeros
from pico import pico_language_model

from flwr_collabedit.client import EditingClient
from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.editor import ModelEdit
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.errors import ConfigurationError, PayloadError, SecondMomentError
from flwr_collabedit.messages.payloads import array_keys
from flwr_collabedit.models.fingerprint import describe

CASE = EvaluationCase(
    request=EditRequest(
        case_id=1, prompt="The capital of {} is", subject="France", target_new="Rome"
    ),
    target_true="Paris",
)


@pytest.fixture
def lm():
    return pico_language_model("gpt2", dtype=torch.float64)


def client(lm, folder, cases=(CASE,)):
    return EditingClient(lm, [list(cases)], name="client-0", state_folder=folder)


def state_of(lm):
    return copy.deepcopy(lm.model.state_dict())


def assert_untouched(lm, before):
    after = lm.model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    hooks = [m for m in lm.model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not hooks


def test_fit_returns_one_array_a_part_and_leaves_the_model_alone(lm, tmp_path):
    before, arrays = state_of(lm), zeros(lm)
    config = instruction(lm, arrays)

    found, num_edits, figures = client(lm, tmp_path).fit(arrays, config)

    d_value, d_key = next(iter(describe(lm, MEMIT.layers).shapes.values()))
    assert len(found) == len(array_keys(config["measured"].split("\n"), "factors"))
    assert [array.shape for array in found] == [(d_key, 1), (d_value, 1)]
    assert num_edits == 1
    assert figures["residual-square"] > 0
    assert_untouched(lm, before)


def test_a_client_that_raises_leaves_the_model_bit_identical(lm, tmp_path, monkeypatch):
    before, arrays = state_of(lm), [array + 0.5 for array in zeros(lm)]

    def fail(*args, **kwargs):
        raise MemoryError("injected")

    monkeypatch.setattr("flwr_collabedit.client.edit_work.measure", fail)
    with pytest.raises(MemoryError, match="injected"):
        client(lm, tmp_path).fit(arrays, instruction(lm, arrays))

    assert_untouched(lm, before)


def test_another_model_is_refused_with_both_fingerprints(lm, tmp_path):
    arrays = zeros(lm)
    other = pico_language_model("gpt2", dtype=torch.float64, seed=1)

    with pytest.raises(PayloadError, match="same model, revision and tokenizer"):
        client(other, tmp_path).fit(arrays, instruction(lm, arrays))


def test_deltas_of_another_shape_are_refused(lm, tmp_path):
    arrays = zeros(lm)
    config = instruction(lm, arrays)

    with pytest.raises(PayloadError, match="Expected deltas of shapes"):
        client(lm, tmp_path).fit(arrays[:1], config)


def test_an_instruction_of_another_schema_is_refused(lm, tmp_path):
    arrays = zeros(lm)
    config = {**instruction(lm, arrays), "schema-version": 2}

    with pytest.raises(PayloadError, match="schema version 1, found 2"):
        client(lm, tmp_path).fit(arrays, config)


def test_targets_are_optimised_once_a_round_and_found_again(lm, tmp_path, monkeypatch):
    arrays = zeros(lm)
    config = instruction(lm, arrays)
    first, _, _ = client(lm, tmp_path).fit(arrays, config)

    def fail(*args, **kwargs):
        raise AssertionError("optimised a second time")

    monkeypatch.setattr("flwr_collabedit.client.round_targets.optimize_targets", fail)
    again, _, _ = client(lm, tmp_path).fit(arrays, config)

    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_targets_of_another_text_are_not_mistaken_for_these(lm, tmp_path):
    arrays = zeros(lm)
    client(lm, tmp_path).fit(arrays, instruction(lm, arrays))
    request = CASE.request.model_copy(update={"target_new": "Berlin"})
    other = CASE.model_copy(update={"request": request})

    client(lm, tmp_path, [other]).fit(arrays, instruction(lm, arrays))

    assert len(list(tmp_path.glob("targets-*.safetensors"))) == 2


def test_a_lost_state_folder_in_the_middle_of_a_round_is_an_error(lm, tmp_path):
    arrays = zeros(lm)
    config = instruction(lm, arrays)
    moved = [array + 0.1 for array in arrays]

    with pytest.raises(ConfigurationError, match="Keep the state folder"):
        client(lm, tmp_path).fit(moved, config)


def test_a_round_without_edits_gives_empty_factors(lm, tmp_path):
    arrays = zeros(lm)

    found, num_edits, _ = client(lm, tmp_path).fit(
        arrays, instruction(lm, arrays, server_round=2)
    )

    assert num_edits == 0
    assert all(array.shape[1] == 0 for array in found)


def moments_of(lm):
    generator = torch.Generator().manual_seed(3)
    keys = {
        name: torch.randn(2 * d_key, d_key, generator=generator).double()
        for name, (_, d_key) in describe(lm, MEMIT.layers).shapes.items()
    }
    return {name: k.T @ k / len(k) for name, k in keys.items()}


def test_a_client_that_edits_alone_returns_what_memit_adds(lm, tmp_path):
    before, arrays = state_of(lm), [array + 0.01 for array in zeros(lm)]
    names, moments = describe(lm, MEMIT.layers).parameters, moments_of(lm)
    config = instruction(
        lm, arrays, measured=names, form="delta", layer_schedule="local"
    )
    start = {n: torch.from_numpy(a) for n, a in zip(names, arrays, strict=True)}

    found, num_edits, figures = EditingClient(
        lm, [[CASE]], name="c", state_folder=tmp_path, second_moments=lambda _: moments
    ).fit(arrays, config)

    editor = MemitEditor(lm, MEMIT, ContextTemplates(), moments)
    expected = editor.edit([CASE.request], start=ModelEdit(start))
    for name, array in zip(names, found, strict=True):
        own = (expected.deltas[name] - start[name]).numpy()
        np.testing.assert_allclose(array, own, rtol=1e-9, atol=1e-12)
    norm = float(expected.residual_norms_before.norm())
    assert figures["residual-square"] == pytest.approx(norm**2)
    assert num_edits == 1
    assert_untouched(lm, before)


def test_second_moments_are_asked_for_only_where_a_client_edits_alone(lm, tmp_path):
    def unexpected(memit):
        raise AssertionError("loaded")

    arrays = zeros(lm)
    subject = EditingClient(
        lm, [[CASE]], name="c", state_folder=tmp_path, second_moments=unexpected
    )

    subject.fit(arrays, instruction(lm, arrays))
    with pytest.raises(AssertionError, match="loaded"):
        subject.fit(arrays, instruction(lm, arrays, layer_schedule="local"))


def test_editing_alone_without_second_moments_is_an_error_with_a_remedy(lm, tmp_path):
    arrays = zeros(lm)
    config = instruction(lm, arrays, form="delta", layer_schedule="frozen")

    with pytest.raises(SecondMomentError, match="Give EditingClient its second_mom"):
        client(lm, tmp_path).fit(arrays, config)
