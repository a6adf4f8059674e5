"""A share of the clients a round: who is asked, what is merged, what is needed."""

import pytest
import torch
from federation import MODEL, Edits, client_app, pooled_deltas, strategy
from flwr.app import Message
from flwr.serverapp.exception import AggregationError
from test_collab_edit import BAD_REPLIES, relative_gap

from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.messages.payloads import CONFIG, read_deltas
from flwr_collabedit.strategies import EditAvg
from flwr_collabedit.strategies.exchange import sample_nodes
from simulations.in_process import InProcessGrid

CLIENTS = [Edits.random(2, seed) for seed in range(8)]
NODES = range(1000, 1008)


def run(num_rounds=1, kind=None, tamper=lambda index, reply: reply, **options):
    asked: dict[int, set[int]] = {}

    def note(index: int, reply: Message) -> Message:
        round_id = reply.content.config_records[CONFIG]["round-id"]
        asked.setdefault(round_id, set()).add(index)
        return tamper(index, reply)

    server = strategy(len(CLIENTS), kind, **options)
    grid = InProcessGrid(client_app(CLIENTS, note), len(CLIENTS))
    result = server.start(grid, num_rounds=num_rounds)
    deltas = list(read_deltas(result.arrays, MODEL).values())
    return deltas, server, list(asked.values())


def test_a_sample_repeats_with_its_seed_and_changes_with_it():
    first = sample_nodes(NODES, 0.5, 3)

    assert first == sample_nodes(NODES, 0.5, 3)
    assert first == sorted(set(first))
    assert set(first) < set(NODES)
    assert len({tuple(sample_nodes(NODES, 0.5, seed)) for seed in range(20)}) > 10


@pytest.mark.parametrize(
    ("fraction", "count"), [(1.0, 8), (0.5, 4), (0.3, 2), (0.01, 1)]
)
def test_a_sample_has_the_asked_for_share_and_at_least_one(fraction, count):
    assert len(sample_nodes(NODES, fraction, 0)) == count


def test_only_the_sampled_clients_edits_are_written():
    found, server, (asked,) = run(fraction_train=0.5)

    report = server.reports[-1]
    edits = Edits(
        torch.cat([CLIENTS[index].seeds for index in asked], dim=1),
        torch.cat([CLIENTS[index].goals for index in asked], dim=1),
    )
    assert (report.num_clients, report.num_edits) == (4, 8)
    assert asked == {node - 1000 for node in sample_nodes(NODES, 0.5, 1)}
    pooled = pooled_deltas(edits, "synchronous", "remaining")
    assert relative_gap(found, pooled) < 1e-9


def test_all_exchanges_of_a_round_ask_the_same_clients_and_rounds_differ():
    _, _, rounds = run(num_rounds=3, fraction_train=0.25, sweeps=2)

    assert [len(asked) for asked in rounds] == [2, 2, 2]
    assert len(set(map(frozenset, rounds))) > 1


def test_every_strategy_samples():
    _, server, (asked,) = run(kind=EditAvg, fraction_train=0.25, seed=5)

    assert server.reports[-1].num_clients == len(asked) == 2


def test_all_that_were_asked_must_answer_unless_fewer_are_enough():
    def broken(index: int, reply: Message) -> Message:
        first = sample_nodes(NODES, 0.5, 1)[0] - 1000
        return BAD_REPLIES["not finite"](reply) if index == first else reply

    with pytest.raises(AggregationError, match=r"at least 4 valid.*found 3"):
        run(fraction_train=0.5, tamper=broken)

    _, server, _ = run(fraction_train=0.5, min_replies=3, tamper=broken)
    assert server.reports[-1].num_clients == 3


def test_more_replies_than_clients_asked_cannot_be_demanded():
    with pytest.raises(AggregationError, match=r"min_replies is 5, but only 4 of 8"):
        run(fraction_train=0.5, min_replies=5)


@pytest.mark.parametrize("fraction", [0.0, 1.2])
def test_a_fraction_that_is_no_share_is_refused(fraction):
    with pytest.raises(ConfigurationError, match="above 0 and at most 1"):
        strategy(2, fraction_train=fraction)
