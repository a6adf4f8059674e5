"""The law of the product with real language models: merged equals pooled."""

import pytest
import torch
from federating import CASES, CONTEXTS, MEMIT, ROUNDS, SERVER, make_grid, second_moments
from pico import pico_language_model
from torch import Tensor

from flwr_collabedit.algebra.priors import ridge_priors
from flwr_collabedit.editors.editor import ModelEdit
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.evaluation.evaluate import evaluate_cases
from flwr_collabedit.evaluation.metrics import summarize
from flwr_collabedit.messages.payloads import read_deltas
from flwr_collabedit.models.fingerprint import describe
from flwr_collabedit.models.weights import applied_deltas
from flwr_collabedit.strategies import CollabEditStrategy


def federate(lm, folder, moments, **options):
    server = CollabEditStrategy(
        describe(lm, MEMIT.layers),
        ridge_priors(moments, MEMIT.second_moment_weight),
        **{**SERVER, **options},
    )
    grid = make_grid(lm, folder, results_folder=folder / "cases")
    result = server.start(grid, num_rounds=2)
    return read_deltas(result.arrays, server.model), server


def pooled(lm, moments, schedule):
    editor = MemitEditor(lm, MEMIT, CONTEXTS, moments)
    deltas: dict[str, Tensor] = {}
    for index in range(2):
        requests = [case.request for own in ROUNDS for case in own[index]]
        start = ModelEdit(deltas)
        deltas = editor.edit(requests, layer_schedule=schedule, start=start).deltas
    return deltas


@pytest.mark.parametrize("form", ["factors", "dense"])
@pytest.mark.parametrize("schedule", ["synchronous", "frozen"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_federated_equals_pooled_in_float64(family, schedule, form, tmp_path):
    lm = pico_language_model(family, dtype=torch.float64)
    moments = second_moments(lm)

    found, _ = federate(
        lm,
        tmp_path,
        moments,
        layer_schedule=schedule,
        form=form,
        wire_dtype="float64",
        evaluate=False,
    )

    for name, expected in pooled(lm, moments, schedule).items():
        assert expected.norm() > 0
        assert (found[name] - expected).norm() / expected.norm() < 1e-9


def test_federated_equals_pooled_in_float32_to_its_precision(tmp_path):
    lm = pico_language_model("gpt2")
    moments = second_moments(lm)

    found, _ = federate(lm, tmp_path, moments, evaluate=False)

    for name, expected in pooled(lm, moments, "synchronous").items():
        assert (found[name] - expected).norm() / expected.norm() < 1e-4


def test_clients_score_together_what_one_party_scores(tmp_path):
    lm = pico_language_model("gpt2", dtype=torch.float64)
    moments = second_moments(lm)

    found, server = federate(lm, tmp_path, moments, wire_dtype="float64")

    with applied_deltas(lm, found):
        together = summarize(evaluate_cases(lm, CASES).sums)
    after = server.reports[-1]
    assert after.evaluation["EM"] == pytest.approx(together["EM"], abs=1e-7)
    assert after.evaluation["Score"] == together["Score"]
    assert after.residual_norm_after < after.residual_norm_before
    lines = (tmp_path / "cases" / "client-0-round-2.jsonl").read_text().splitlines()
    assert len(lines) == 3


def test_weight_norms_of_the_report_are_those_of_the_edited_model(tmp_path):
    lm = pico_language_model("llama", dtype=torch.float64)

    found, server = federate(lm, tmp_path, second_moments(lm), wire_dtype="float64")

    name = lm.weight_name(0)
    weight = lm.down_projection(0).weight + found[name]
    norms = server.reports[-1].weight_norms
    assert norms[f"l1/{name}"] == pytest.approx(float(weight.abs().sum()), abs=1e-6)
    assert norms[f"l2/{name}"] == pytest.approx(float(weight.norm()), abs=1e-6)
    added = float(found[name].abs().sum())
    assert norms[f"delta-l1/{name}"] == pytest.approx(added, abs=1e-6)
