"""Rounds that leave earlier ones alone: AlphaEdit's cache and MEMIT-seq, federated."""

import pytest
import torch
from federation import (
    D_KEY,
    D_VALUE,
    MODEL,
    WEIGHT,
    Edits,
    client_app,
    second_moments,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from numbers_client import numbers_client_fn

from flwr_collabedit.algebra.priors import ridge_priors
from flwr_collabedit.algebra.projection import NullSpacePrior
from flwr_collabedit.client.editing_app import make_client_app
from flwr_collabedit.messages.payloads import read_deltas
from flwr_collabedit.strategies import CollabEditStrategy, SecureAggregation
from simulations.in_process import InProcessGrid

# The eigenvalues of these second moments are from 0.2 to 2.6.
THRESHOLD, L2 = 0.9, 2.0
EYE = torch.eye(D_KEY).double()
SEQUENTIAL = {"history": "dynamic-covariance"}  # beta_0 = beta_1 = 1


def null_spaces():
    moments = second_moments()
    return {n: NullSpacePrior.of(c0, THRESHOLD, L2) for n, c0 in moments.items()}


def memit_seq(moment, cache, keys, residuals):
    """MEMIT-seq of AlphaEdit's code: R K^T (lambda C0 + cache + K K^T)^-1."""
    system = WEIGHT * moment + cache + keys @ keys.T
    return torch.linalg.solve(system, keys @ residuals.T).T


def alpha_edit(moment, cache, keys, residuals):
    """AlphaEdit of its code: (P (cache + K K^T) + l2 I)^-1 P K R^T, transposed."""
    values, vectors = torch.linalg.eigh(moment)
    projector = vectors[:, values < THRESHOLD] @ vectors[:, values < THRESHOLD].T
    system = projector @ (cache + keys @ keys.T) + L2 * EYE
    return torch.linalg.solve(system, projector @ keys @ residuals.T).T


EDITORS = {
    "memit-seq": (lambda: ridge_priors(second_moments(), WEIGHT), memit_seq),
    "alphaedit": (null_spaces, alpha_edit),
}


def federated(priors, clients, num_rounds, app=None, **options):
    server = CollabEditStrategy(
        MODEL,
        priors,
        hyperparameters="{}",
        contexts="[]",
        wire_dtype="float64",
        min_available_nodes=len(clients),
        evaluate=False,
        **options,
    )
    grid = InProcessGrid(app or client_app(clients), len(clients))
    arrays = server.start(grid, num_rounds=num_rounds).arrays
    return list(read_deltas(arrays, MODEL).values())


def published(step, rounds, schedule):
    """One party's rounds, layer by layer, with the formula of a single solve."""
    moments = second_moments()
    deltas = [torch.zeros(D_VALUE, D_KEY).double() for _ in moments]
    caches = [torch.zeros_like(EYE) for _ in moments]
    for edits in rounds:
        seen = list(deltas)
        grams = []
        for layer, name in enumerate(moments):
            frozen = schedule == "frozen"
            keys, residuals = edits.measure(layer, seen if frozen else deltas)
            share = 1 / len(deltas) if frozen else 1 / (len(deltas) - layer)
            deltas[layer] = deltas[layer] + step(
                moments[name], caches[layer], keys, share * residuals
            )
            grams.append(keys @ keys.T)
        caches = [a + b for a, b in zip(caches, grams, strict=True)]
    return deltas


def gap(found, expected):
    pairs = zip(found, expected, strict=True)
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


@pytest.mark.parametrize("editor", EDITORS)
@settings(max_examples=10, deadline=None)
@given(
    owners=st.lists(st.integers(0, 2), min_size=2, max_size=10),
    schedule=st.sampled_from(["synchronous", "frozen"]),
    form=st.sampled_from(["factors", "dense"]),
    seed=st.integers(0, 99),
)
def test_rounds_of_a_federation_are_the_published_sequence(
    editor, owners, schedule, form, seed
):
    priors, step = EDITORS[editor]
    rounds = [Edits.random(len(owners), seed), Edits.random(len(owners), seed + 1)]
    clients = [
        [edits.take([i for i, o in enumerate(owners) if o == c]) for edits in rounds]
        for c in range(3)
    ]

    found = federated(
        priors(), clients, 2, layer_schedule=schedule, form=form, **SEQUENTIAL
    )

    assert gap(found, published(step, rounds, schedule)) < 1e-9


@pytest.mark.parametrize("editor", EDITORS)
def test_the_cache_is_what_keeps_the_first_rounds_edits(editor):
    priors, _ = EDITORS[editor]
    rounds = [Edits.random(2, seed) for seed in range(6)]

    def residual_of_the_first(**options):
        deltas = federated(priors(), [rounds], len(rounds), **options)
        return float(rounds[0].measure(2, deltas)[1].norm())

    assert residual_of_the_first(**SEQUENTIAL) < residual_of_the_first()


def test_alphaedit_rounds_stay_in_the_null_space():
    rounds = [Edits.random(3, seed) for seed in range(4)]

    found = federated(null_spaces(), [rounds], 4, sweeps=2, **SEQUENTIAL)

    for delta, moment in zip(found, second_moments().values(), strict=True):
        values, vectors = torch.linalg.eigh(moment)
        known = vectors[:, values >= THRESHOLD]
        assert 0 < known.shape[1] < D_KEY
        assert (delta @ known).norm() < 1e-12 * delta.norm()


def test_alphaedit_with_d4s_is_one_batch_in_any_order():
    rounds = [Edits.random(3, seed) for seed in range(4)]
    options = {"history": "d4s", "layer_schedule": "frozen"}

    found = federated(null_spaces(), [rounds], 4, **options)
    reverse = federated(null_spaces(), [rounds[::-1]], 4, **options)
    batch = Edits(
        torch.cat([edits.seeds for edits in rounds], 1),
        torch.cat([edits.goals for edits in rounds], 1),
    )

    assert all(torch.equal(a, b) for a, b in zip(found, reverse, strict=True))
    assert gap(found, published(alpha_edit, [batch], "frozen")) < 1e-9


def test_alphaedit_by_secure_aggregation_is_the_plain_sum():
    clients = [[Edits.random(n, n), Edits.random(2, 9 + n)] for n in (3, 1, 0, 4)]

    plain = federated(null_spaces(), clients, 2, form="dense", **SEQUENTIAL)
    secure = federated(
        null_spaces(),
        clients,
        2,
        app=make_client_app(numbers_client_fn(clients)),
        form="dense",
        secure=SecureAggregation(num_limbs=3),
        **SEQUENTIAL,
    )

    assert gap(secure, plain) < 1e-9
