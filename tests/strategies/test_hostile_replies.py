"""Whatever a client sends, the others' sum keeps its bits."""

import random

import pytest
import torch
from federation import MODEL, Edits, client_app, strategy
from flwr.app import Message, RecordDict
from hostile import DAMAGES, damaged

from flwr_collabedit.messages.payloads import read_deltas
from flwr_collabedit.strategies import EditAvg, TiesMerging
from simulations.in_process import InProcessGrid

HONEST, HOSTILE = 4, 2500
CLIENTS = [Edits.random(3, seed) for seed in range(HONEST)]


def merged(damage=None, num_hostile=0, kind=None, **options):
    clients = [*CLIENTS, *[CLIENTS[0]] * num_hostile]

    def tamper(index: int, reply: Message) -> Message:
        if index >= HONEST:
            reply.content = damage(reply.content)
        return reply

    server = strategy(len(clients), kind, min_replies=HONEST, **options)
    grid = InProcessGrid(client_app(clients, tamper), len(clients))
    result = server.start(grid, num_rounds=1)
    return read_deltas(result.arrays, MODEL), server


def assert_same_bits(found, expected):
    for name in MODEL.parameters:
        assert torch.equal(found[name], expected[name])


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("form", ["factors", "dense"])
def test_a_damaged_reply_is_refused_and_changes_no_bit(name, form):
    expected, _ = merged(form=form)
    for seed in range(4):
        rng = random.Random(seed)
        found, server = merged(lambda c, r=rng: DAMAGES[name](c, r), 1, form=form)

        assert_same_bits(found, expected)
        assert server.reports[-1].num_clients == HONEST
        assert len(server.reports[-1].dropped) == 1


@pytest.mark.parametrize("seed", range(4))
def test_ten_thousand_damaged_replies_change_no_bit(seed):
    options = {"layer_schedule": "frozen", "form": ["factors", "dense"][seed % 2]}
    expected, _ = merged(**options)
    rng = random.Random(seed)

    found, server = merged(lambda content: damaged(content, rng), HOSTILE, **options)

    assert_same_bits(found, expected)
    assert len(server.reports[-1].dropped) == HOSTILE


@pytest.mark.parametrize("kind", [EditAvg, TiesMerging])
def test_strategies_that_merge_deltas_refuse_them_too(kind):
    expected, _ = merged(kind=kind)
    rng = random.Random(7)

    found, _ = merged(lambda content: damaged(content, rng), 100, kind=kind)

    assert_same_bits(found, expected)


def test_random_values_in_good_shape_never_crash():
    """What cannot be told from edits is taken, and the result stays finite."""
    rng = random.Random(3)

    def noise(content: RecordDict) -> RecordDict:
        return damaged(damaged(content, rng), rng)

    found, _ = merged(noise, 200)

    assert all(delta.isfinite().all() for delta in found.values())
