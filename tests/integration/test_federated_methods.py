"""Every method with real language models: sweeps, local measurements, baselines."""

import pytest
import torch
from federating import CONTEXTS, MEMIT, ROUNDS, SERVER, make_grid

from flwr_collabedit.algebra.merging import task_arithmetic
from flwr_collabedit.algebra.priors import ridge_priors
from flwr_collabedit.editors.editor import ModelEdit
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.messages.payloads import read_deltas
from flwr_collabedit.models.fingerprint import describe
from flwr_collabedit.strategies import CollabEditStrategy, TaskArithmetic

COMMON = {**SERVER, "evaluate": False, "wire_dtype": "float64"}
FIRST = [own[0] for own in ROUNDS]
REQUESTS = [case.request for own in FIRST for case in own]


@pytest.fixture
def grid(lm, moments, tmp_path):
    return make_grid(lm, tmp_path, moments)


def collab_edit(lm, moments, **options):
    model = describe(lm, MEMIT.layers)
    priors = ridge_priors(moments, MEMIT.second_moment_weight)
    return CollabEditStrategy(model, priors, **{**COMMON, **options})


def run(server, grid, num_rounds=1):
    return read_deltas(server.start(grid, num_rounds=num_rounds).arrays, server.model)


def gaps(found, expected):
    return [float((found[n] - d).norm() / d.norm()) for n, d in expected.items()]


@pytest.mark.parametrize("schedule", ["synchronous", "frozen"])
def test_federated_sweeps_equal_pooled_sweeps(lm, moments, grid, schedule):
    server = collab_edit(lm, moments, layer_schedule=schedule, sweeps=3)

    found = run(server, grid)

    pooled = MemitEditor(lm, MEMIT, CONTEXTS, moments).edit(
        REQUESTS, layer_schedule=schedule, sweeps=3
    )
    assert max(gaps(found, pooled.deltas)) < 1e-9
    norms = server.reports[-1].sweep_residual_norms
    assert norms == pytest.approx(pooled.sweep_residual_norms)


def test_a_second_round_sweeps_from_where_the_first_ended(lm, moments, grid):
    found = run(collab_edit(lm, moments, sweeps=2), grid, num_rounds=2)

    editor, deltas = MemitEditor(lm, MEMIT, CONTEXTS, moments), {}
    for index in range(2):
        requests = [case.request for own in ROUNDS for case in own[index]]
        deltas = editor.edit(requests, start=ModelEdit(deltas), sweeps=2).deltas
    assert max(gaps(found, deltas)) < 1e-9


def test_local_measurements_merge_exactly_at_the_first_layer_only(lm, moments, grid):
    before = {n: p.clone() for n, p in lm.model.named_parameters()}

    found = run(collab_edit(lm, moments, layer_schedule="local"), grid)

    pooled = MemitEditor(lm, MEMIT, CONTEXTS, moments).edit(REQUESTS).deltas
    first, second = gaps(found, pooled)
    assert first < 1e-9
    assert second > 1e-4
    assert all(torch.equal(p, before[n]) for n, p in lm.model.named_parameters())


def test_task_arithmetic_adds_what_each_client_writes_alone(lm, moments, grid):
    server = TaskArithmetic(describe(lm, MEMIT.layers), **COMMON)

    found = run(server, grid)

    editor = MemitEditor(lm, MEMIT, CONTEXTS, moments)
    own = [editor.edit([case.request for case in cases]).deltas for cases in FIRST]
    expected = {n: task_arithmetic([d[n] for d in own]) for n in server.model.shapes}
    assert max(gaps(found, expected)) < 1e-9
