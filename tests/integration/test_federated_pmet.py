"""PMET in the federation: the same law as MEMIT's, with real language models."""

import pytest
import torch
from federating import CONTEXTS, MEMIT, ROUNDS, SERVER, make_grid, second_moments
from pico import pico_language_model

from flwr_collabedit.algebra.priors import ridge_priors
from flwr_collabedit.editors.editor import ModelEdit
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.editors.pmet_config import PmetConfig
from flwr_collabedit.messages.payloads import read_deltas
from flwr_collabedit.models.fingerprint import describe
from flwr_collabedit.strategies import CollabEditStrategy, SimpleAverage

PMET = PmetConfig(
    layers=MEMIT.layers,
    num_gradient_steps=6,
    second_moment_weight=MEMIT.second_moment_weight,
)
COMMON = {**SERVER, "hyperparameters": PMET.to_json(), "wire_dtype": "float64"}


def model_and_moments(family):
    lm = pico_language_model(family, dtype=torch.float64)
    return lm, second_moments(lm)


def run(server, lm, moments, folder, num_rounds):
    grid = make_grid(lm, folder, moments)
    return read_deltas(server.start(grid, num_rounds=num_rounds).arrays, server.model)


@pytest.mark.parametrize("schedule", ["synchronous", "frozen"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_federated_pmet_equals_one_partys(family, schedule, tmp_path):
    lm, moments = model_and_moments(family)
    server = CollabEditStrategy(
        describe(lm, PMET.layers),
        ridge_priors(moments, PMET.second_moment_weight),
        layer_schedule=schedule,
        **COMMON,
    )

    found = run(server, lm, moments, tmp_path, num_rounds=2)

    editor, pooled = MemitEditor(lm, PMET, CONTEXTS, moments), {}
    for index in range(2):
        requests = [case.request for own in ROUNDS for case in own[index]]
        result = editor.edit(requests, layer_schedule=schedule, start=ModelEdit(pooled))
        pooled = result.deltas
    for name, expected in pooled.items():
        assert expected.norm() > 0
        assert (found[name] - expected).norm() / expected.norm() < 1e-9
    # The norm that clients report is of what PMET has left to write, not of MEMIT's.
    after = server.reports[-1].residual_norm_after
    assert after == pytest.approx(float(result.residual_norms_after.norm()))
    with_memit = MemitEditor(lm, MEMIT, CONTEXTS, moments).edit(
        [case.request for own in ROUNDS for case in own[0]], layer_schedule=schedule
    )
    name = lm.weight_name(0)
    assert (with_memit.deltas[name] - found[name]).norm() > 0.1 * found[name].norm()


def test_clients_that_edit_alone_follow_pmet_too(tmp_path):
    lm, moments = model_and_moments("gpt2")
    server = SimpleAverage(
        describe(lm, PMET.layers), layer_schedule="local", evaluate=False, **COMMON
    )

    found = run(server, lm, moments, tmp_path, num_rounds=1)

    editor = MemitEditor(lm, PMET, CONTEXTS, moments)
    own = [
        editor.edit([case.request for case in rounds[0]]).deltas for rounds in ROUNDS
    ]
    for name in server.model.shapes:
        expected = sum(deltas[name] for deltas in own) / len(own)
        assert (found[name] - expected).norm() / expected.norm() < 1e-9


def test_the_default_split_follows_the_editor_in_the_hyperparameters():
    lm, moments = model_and_moments("gpt2")
    model = describe(lm, PMET.layers)

    def split(**options):
        common = {**COMMON, **options}
        priors = ridge_priors(moments, 1.0)
        return CollabEditStrategy(model, priors, **common).residual_split

    assert split() == "square-root"
    assert split(layer_schedule="frozen") == "uniform"
    assert split(hyperparameters=MEMIT.to_json()) == "remaining"
