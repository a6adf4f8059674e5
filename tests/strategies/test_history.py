"""Histories: D4S's rounds are one batch in any order; dynamic covariance's formula."""

from itertools import pairwise

import pytest
import torch
from federation import (
    D_KEY,
    D_VALUE,
    MODEL,
    WEIGHT,
    Edits,
    client_app,
    pooled_deltas,
    second_moments,
    strategy,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.messages.payloads import read_deltas
from simulations.in_process import InProcessGrid

D4S = {"history": "d4s", "layer_schedule": "frozen"}


def run(clients, num_rounds, **options):
    server = strategy(len(clients), **options)
    grid = InProcessGrid(client_app(clients), len(clients))
    result = server.start(grid, num_rounds=num_rounds)
    return list(read_deltas(result.arrays, MODEL).values()), server


def gap(found, expected):
    pairs = zip(found, expected, strict=True)
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


@settings(max_examples=15, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 12), min_size=19, max_size=19),
    order=st.permutations(range(20)),
    seed=st.integers(0, 99),
)
def test_twenty_rounds_equal_one_batch_in_any_order_of_rounds(cuts, order, seed):
    edits = Edits.random(12, seed)
    bounds = [0, *sorted(cuts), 12]
    rounds = [edits.take(range(a, b)) for a, b in pairwise(bounds)]

    in_order, _ = run([rounds], 20, **D4S)
    shuffled, _ = run([[rounds[i] for i in order]], 20, **D4S)

    assert gap(in_order, pooled_deltas(edits, "frozen", "uniform")) < 1e-9
    assert all(torch.equal(a, b) for a, b in zip(in_order, shuffled, strict=True))


def test_without_history_rounds_are_not_one_batch():
    rounds = [Edits.random(4, seed) for seed in range(3)]

    found, _ = run([rounds], 3, layer_schedule="frozen")
    d4s, _ = run([rounds], 3, **D4S)

    assert gap(found, d4s) > 1e-3


def test_dynamic_covariance_adds_earlier_keys_to_the_prior():
    rounds = [Edits.random(5, seed) for seed in range(3)]
    betas = {"beta_0": 0.7, "beta_1": 2.5}

    found, _ = run(
        [rounds], 3, history="dynamic-covariance", layer_schedule="frozen", **betas
    )

    moments = second_moments()
    deltas = [torch.zeros(D_VALUE, D_KEY, dtype=torch.float64) for _ in moments]
    grams = [torch.zeros(D_KEY, D_KEY, dtype=torch.float64) for _ in moments]
    for edits in rounds:
        measured = [edits.measure(layer, deltas) for layer in range(len(deltas))]
        for layer, (keys, residuals) in enumerate(measured):
            prior = 0.7 * WEIGHT * moments[MODEL.parameters[layer]]
            prior = prior + 2.5 * grams[layer]
            step = torch.linalg.solve(
                prior + keys @ keys.T, residuals @ keys.T / 3, left=False
            )
            deltas[layer] = deltas[layer] + step
            grams[layer] = grams[layer] + keys @ keys.T
    assert gap(found, deltas) < 1e-9


def test_dynamic_covariance_forgets_less_than_no_history():
    rounds = [Edits.random(3, seed) for seed in range(8)]

    def residual_of_the_first(deltas):
        return float(rounds[0].measure(2, deltas)[1].norm())

    dynamic, _ = run([rounds], 8, history="dynamic-covariance")
    none, _ = run([rounds], 8)

    assert residual_of_the_first(dynamic) < residual_of_the_first(none)


def test_a_histories_size_does_not_grow_with_the_edits():
    few, many = Edits.random(2, 0), Edits.random(200, 1)

    sizes = []
    for edits in (few, many):
        _, server = run([[edits, edits]], 2, **D4S, form="dense")
        tensors = [
            tensor
            for total in server.history.sums.values()
            for part in (total.gram, total.cross)
            for tensor in (part.total, part.low)
        ]
        sizes.append(sum(tensor.numel() for tensor in tensors))
        assert not server.state.ledger.entries
    assert sizes[0] == sizes[1] == 2 * 3 * (D_KEY * D_KEY + D_VALUE * D_KEY)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"history": "d4"}, "Known: .*'d4s'"),
        ({"history": "d4s"}, "'frozen' schedule and one sweep"),
        ({**D4S, "sweeps": 2}, "2 sweeps"),
        (
            {"history": "dynamic-covariance", "layer_schedule": "local"},
            "earlier rounds",
        ),
        ({"history": "dynamic-covariance", "beta_1": 0.0}, "above 0"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, reason):
    with pytest.raises(ConfigurationError, match=reason):
        strategy(1, **options)
