"""AlphaEdit in the federation: the same law as MEMIT's, with real language models."""

import pytest
import torch
from federating import CASES, CONTEXTS, MEMIT, ROUNDS, SERVER, make_grid, second_moments
from pico import pico_language_model

from flwr_collabedit.algebra.history import EditHistory
from flwr_collabedit.editors.alpha_edit_config import AlphaEditConfig
from flwr_collabedit.editors.editor import ModelEdit
from flwr_collabedit.editors.keys import collect_keys
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.editors.methods import priors_of
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.messages.payloads import read_deltas
from flwr_collabedit.models.fingerprint import describe
from flwr_collabedit.models.weights import applied_deltas
from flwr_collabedit.strategies import (
    CollabEditStrategy,
    FedEditStrategy,
    SimpleAverage,
)

# Half of the eigenvalues of the pico models' second moments are below it.
ALPHAEDIT = AlphaEditConfig(
    layers=MEMIT.layers,
    num_gradient_steps=6,
    clamp_norm_factor=4.0,
    nullspace_threshold=0.008,
    l2=0.01,
)
COMMON = {**SERVER, "hyperparameters": ALPHAEDIT.to_json(), "wire_dtype": "float64"}


def model_and_moments(family):
    lm = pico_language_model(family, dtype=torch.float64)
    return lm, second_moments(lm)


def run(server, lm, moments, folder, num_rounds):
    grid = make_grid(lm, folder, moments)
    return read_deltas(server.start(grid, num_rounds=num_rounds).arrays, server.model)


def gap(found, expected):
    return max(float((found[n] - d).norm() / d.norm()) for n, d in expected.items())


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("gpt2", {"history": "dynamic-covariance"}),
        ("llama", {"history": "dynamic-covariance", "form": "dense"}),
        ("gpt2", {"layer_schedule": "frozen", "form": "dense"}),
        ("llama", {"layer_schedule": "frozen", "history": "dynamic-covariance"}),
        ("gpt2", {"sweeps": 2, "history": "dynamic-covariance"}),
        ("llama", {"layer_schedule": "frozen", "history": "d4s"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value)),
)
def test_federated_alphaedit_equals_one_partys(family, options, tmp_path):
    lm, moments = model_and_moments(family)
    priors = priors_of(ALPHAEDIT, moments)
    server = CollabEditStrategy(
        describe(lm, ALPHAEDIT.layers), priors, **COMMON, **options
    )

    found = run(server, lm, moments, tmp_path, num_rounds=2)

    passes = {k: v for k, v in options.items() if k in ("layer_schedule", "sweeps")}
    editor = MemitEditor(lm, ALPHAEDIT, CONTEXTS, moments)
    pooled = ModelEdit(history=EditHistory(options.get("history", "none")))
    for index in range(2):
        requests = [case.request for own in ROUNDS for case in own[index]]
        pooled = editor.edit(requests, start=pooled, **passes)
    assert all(delta.norm() > 0 for delta in pooled.deltas.values())
    assert gap(found, pooled.deltas) < 1e-9


def test_the_federation_leaves_the_known_directions_of_the_layer_alone(tmp_path):
    lm, moments = model_and_moments("gpt2")
    priors = priors_of(ALPHAEDIT, moments)
    server = CollabEditStrategy(describe(lm, ALPHAEDIT.layers), priors, **COMMON)

    found = run(server, lm, moments, tmp_path, num_rounds=2)

    requests = [case.request for case in CASES]
    with applied_deltas(lm, found):
        keys = collect_keys(lm, requests, ALPHAEDIT.layers, CONTEXTS)
    for layer in ALPHAEDIT.layers:
        name = lm.weight_name(layer)
        values, vectors = torch.linalg.eigh(moments[name].double())
        known = vectors[:, values >= ALPHAEDIT.nullspace_threshold]
        kept = known @ (known.T @ keys[layer])
        change = (found[name] @ kept).norm(dim=0)
        assert bool((change <= 1e-6 * found[name].norm() * kept.norm(dim=0)).all())
        # The edits themselves reach the layer: their keys are not all known.
        assert (found[name] @ keys[layer]).norm() > 1e-3 * found[name].norm()


def test_clients_that_edit_alone_follow_alphaedit_too(tmp_path):
    lm, moments = model_and_moments("gpt2")
    server = SimpleAverage(
        describe(lm, ALPHAEDIT.layers),
        layer_schedule="local",
        evaluate=False,
        **COMMON,
    )

    found = run(server, lm, moments, tmp_path, num_rounds=1)

    editor = MemitEditor(lm, ALPHAEDIT, CONTEXTS, moments)
    own = [
        editor.edit([case.request for case in rounds[0]]).deltas for rounds in ROUNDS
    ]
    expected = {name: sum(d[name] for d in own) / len(own) for name in found}
    assert gap(found, expected) < 1e-9


@pytest.mark.parametrize("schedule", ["synchronous", "frozen"])
def test_the_cached_keys_are_those_of_the_edited_model_if_synchronous(schedule):
    lm, moments = model_and_moments("gpt2")
    start = ModelEdit(history=EditHistory("dynamic-covariance"))
    requests = [case.request for case in CASES]

    edit = MemitEditor(lm, ALPHAEDIT, CONTEXTS, moments).edit(
        requests, start=start, layer_schedule=schedule
    )

    with applied_deltas(lm, edit.deltas):
        keys = collect_keys(lm, requests, ALPHAEDIT.layers, CONTEXTS)
    gaps = []
    for layer in ALPHAEDIT.layers:
        cache = edit.history.sums[lm.weight_name(layer)].gram.total
        gaps.append(float((cache - keys[layer] @ keys[layer].T).norm() / cache.norm()))
    assert gaps[0] < 1e-12
    assert (gaps[1] < 1e-12) == (schedule == "synchronous")


def test_no_mediator_vectors_of_it_are_exchanged():
    lm, _ = model_and_moments("gpt2")

    with pytest.raises(ConfigurationError, match=r"FedEdit cannot merge.*ALPHAEDIT"):
        FedEditStrategy(describe(lm, ALPHAEDIT.layers), run_id="1", **COMMON)


def test_a_threshold_that_does_not_fit_the_model_names_the_weight():
    lm, moments = model_and_moments("gpt2")
    config = ALPHAEDIT.model_copy(update={"nullspace_threshold": 1e-9})

    with pytest.raises(ConfigurationError, match=r"h\.0\.mlp.*smallest 0\.0006.*raise"):
        MemitEditor(lm, config, CONTEXTS, moments)
