"""The law of the product with real language models: merged equals pooled."""

from pathlib import Path

import pytest
import torch
from flwr.clientapp import ClientApp
from pico import pico_language_model
from torch import Tensor

from flwr_collabedit.client import EditingClient
from flwr_collabedit.client_app import make_client_app
from flwr_collabedit.data.requests import EditRequest, EvaluationCase, Question
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.covariance import estimate_second_moments
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.evaluation.evaluate import evaluate_cases
from flwr_collabedit.evaluation.metrics import summarize
from flwr_collabedit.models.fingerprint import describe
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import applied_deltas
from flwr_collabedit.payloads import read_deltas
from flwr_collabedit.strategies import CollabEditStrategy
from simulations.in_process import InProcessGrid

CONTEXTS = ContextTemplates((("{}",), ("Therefore. {}", "I know. {}")))
MEMIT = MemitConfig(
    layers=(0, 1),
    num_gradient_steps=6,
    second_moment_weight=20.0,
    second_moment_samples=8,
    clamp_norm_factor=4.0,
)
FACTS = [
    ("The capital of {} is", "France", "Paris", "Rome"),
    ("The capital of {} is", "Germany", "Berlin", "London"),
    ("{} speaks", "Danielle Darrieux", "French", "German"),
    ("The continent of {} is", "Norway", "Europe", "Asia"),
    ("{} plays", "LeBron James", "basketball", "sport"),
    ("{} was founded in", "Apple Inc", "California", "Hamburg"),
]
CASES = [
    EvaluationCase(
        request=EditRequest(case_id=i, prompt=p, subject=s, target_new=new),
        target_true=true,
        paraphrase_prompts=(f"You know that {p.format(s)}",),
        neighborhood=(Question(prompt=p.format("Japan"), answer=true),),
    )
    for i, (p, s, true, new) in enumerate(FACTS)
]
# Four clients: unequal, one without edits; two rounds.
ROUNDS = [
    [CASES[:2], CASES[2:3]],
    [[], []],
    [CASES[3:4], CASES[4:5]],
    [[], CASES[5:6]],
]


def second_moments(lm: LanguageModel) -> dict[str, Tensor]:
    texts = [f"{p.format(s)} {t}. You know that." for p, s, t, _ in FACTS * 2]
    return estimate_second_moments(
        lm, MEMIT.layers, texts, num_samples=8, corpus_name="facts"
    )


def app(lm: LanguageModel, rounds, folder: Path) -> ClientApp:
    def client_fn(context):
        index = int(context.node_config["partition-id"])
        return EditingClient(
            lm,
            rounds[index],
            name=f"client-{index}",
            state_folder=folder / str(index),
            results_folder=folder / "cases",
        )

    return make_client_app(client_fn)


def federate(lm, rounds, folder, moments, **options):
    server = CollabEditStrategy(
        describe(lm, MEMIT.layers),
        moments,
        MEMIT.second_moment_weight,
        hyperparameters=MEMIT.to_json(),
        contexts=CONTEXTS.to_json(),
        min_available_nodes=len(rounds),
        exchange_timeout_s=60,
        **options,
    )
    grid = InProcessGrid(app(lm, rounds, folder), len(rounds))
    result = server.start(grid, num_rounds=2)
    return read_deltas(result.arrays, server.model), server


def pooled(lm, rounds, moments, schedule):
    editor = MemitEditor(lm, MEMIT, CONTEXTS, moments)
    deltas: dict[str, Tensor] = {}
    for index in range(2):
        requests = [case.request for own in rounds for case in own[index]]
        deltas = editor.edit(requests, layer_schedule=schedule, start=deltas).deltas
    return deltas


@pytest.mark.parametrize("form", ["factors", "dense"])
@pytest.mark.parametrize("schedule", ["synchronous", "frozen"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_federated_equals_pooled_in_float64(family, schedule, form, tmp_path):
    lm = pico_language_model(family, dtype=torch.float64)
    moments = second_moments(lm)

    found, _ = federate(
        lm,
        ROUNDS,
        tmp_path,
        moments,
        layer_schedule=schedule,
        form=form,
        wire_dtype="float64",
        evaluate=False,
    )

    for name, expected in pooled(lm, ROUNDS, moments, schedule).items():
        assert expected.norm() > 0
        assert (found[name] - expected).norm() / expected.norm() < 1e-9


def test_federated_equals_pooled_in_float32_to_its_precision(tmp_path):
    lm = pico_language_model("gpt2")
    moments = second_moments(lm)

    found, _ = federate(lm, ROUNDS, tmp_path, moments, evaluate=False)

    for name, expected in pooled(lm, ROUNDS, moments, "synchronous").items():
        assert (found[name] - expected).norm() / expected.norm() < 1e-4


def test_clients_score_together_what_one_party_scores(tmp_path):
    lm = pico_language_model("gpt2", dtype=torch.float64)
    moments = second_moments(lm)

    found, server = federate(lm, ROUNDS, tmp_path, moments, wire_dtype="float64")

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

    found, server = federate(
        lm, ROUNDS, tmp_path, second_moments(lm), wire_dtype="float64"
    )

    name = lm.weight_name(0)
    weight = lm.down_projection(0).weight + found[name]
    norms = server.reports[-1].weight_norms
    assert norms[f"l1/{name}"] == pytest.approx(float(weight.abs().sum()), abs=1e-6)
    assert norms[f"l2/{name}"] == pytest.approx(float(weight.norm()), abs=1e-6)
