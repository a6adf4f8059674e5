"""Clients that are waited for in vain: enough others go on, and the report says so."""

import time

import pytest
import torch
from federation import MODEL, Edits, client_app, strategy
from flwr.app import Message, RecordDict
from flwr.serverapp.exception import AggregationError
from test_evaluation import app as scoring_app

from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.messages.payloads import CONFIG, read_deltas
from simulations.in_process import InProcessGrid

CLIENTS = [[Edits.random(2, 10 * seed + r) for r in range(3)] for seed in range(3)]
NONE = Edits.random(0, 0)
WAIT_S = 0.4


class LeavingGrid(InProcessGrid):
    """Lists the last client not between two exchanges."""

    def __init__(self, *args, leaves=1, returns=99, new_id=False):
        super().__init__(*args)
        self.leaves, self.returns, self.new_id = leaves, returns, new_id
        self.exchanges = 0

    def push_messages(self, messages):
        messages = list(messages)
        self.exchanges += bool(messages)
        return super().push_messages(messages)

    def get_node_ids(self):
        nodes = list(super().get_node_ids())
        if self.exchanges >= self.returns and self.new_id:
            self.contexts[7] = self.contexts.pop(1002)
            self.new_id = False
            return list(self.contexts)
        is_gone = self.leaves <= self.exchanges < self.returns
        return [n for n in nodes if not (is_gone and n == 1002)]


def run(clients=CLIENTS, num_rounds=2, grid=None, **options):
    server = strategy(3, **{"layer_schedule": "frozen", **options})
    grid = grid or LeavingGrid(client_app(clients), 3)
    began = time.monotonic()
    result = server.start(grid, num_rounds=num_rounds)
    deltas = list(read_deltas(result.arrays, MODEL).values())
    return server, deltas, time.monotonic() - began


def test_a_round_goes_on_with_enough_clients_after_its_time():
    server, deltas, seconds = run(min_replies=2, exchange_timeout_s=WAIT_S)

    without = [*CLIENTS[:2], [CLIENTS[2][0], NONE]]
    expected = run(without, grid=InProcessGrid(client_app(without), 3))[1]
    assert seconds >= WAIT_S
    assert all(map(torch.equal, deltas, expected))
    first, second = server.reports
    assert first.dropped == {}
    assert second.dropped == {"1002": "not connected"}
    assert second.clients["client-2"]["status"] == "left out"
    assert second.num_clients == 2


def test_who_was_waited_for_in_vain_is_not_waited_for_again():
    server, _, seconds = run(num_rounds=3, min_replies=2, exchange_timeout_s=1.0)

    assert [len(report.dropped) for report in server.reports] == [0, 1, 1]
    assert seconds < 1.9


@pytest.mark.parametrize("new_id", [False, True])
def test_who_comes_back_takes_part_again(new_id):
    grid = LeavingGrid(client_app(CLIENTS), 3, returns=2, new_id=new_id)

    server, *_ = run(num_rounds=3, grid=grid, min_replies=2, exchange_timeout_s=WAIT_S)

    assert [len(report.dropped) for report in server.reports] == [0, 1, 0]
    assert server.reports[2].clients["client-2"]["status"] == "ok"
    assert server.reports[2].num_clients == 3


@pytest.mark.parametrize("min_replies", [None, 3])
def test_too_few_clients_end_the_run(min_replies):
    with pytest.raises(AggregationError, match="at least 3 connected clients, found 2"):
        run(min_replies=min_replies, exchange_timeout_s=WAIT_S)


def test_a_bound_above_all_clients_is_told_and_not_waited_for():
    with pytest.raises(AggregationError, match="min_replies is 9"):
        run(min_replies=9, grid=InProcessGrid(client_app(CLIENTS), 3))


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_no_time_at_all_is_refused(seconds):
    with pytest.raises(ConfigurationError, match="exchange_timeout_s above 0"):
        strategy(3, exchange_timeout_s=seconds)


class SilentGrid(InProcessGrid):
    """Never delivers what one client evaluates."""

    def send_and_receive(self, messages, *, timeout=None):
        replies = super().send_and_receive(messages, timeout=timeout)
        return [r for r in replies if r.metadata.src_node_id != 1002]


def test_who_does_not_evaluate_is_named():
    server = strategy(3, evaluate=True, min_replies=2)

    server.start(SilentGrid(scoring_app(), 3), num_rounds=0)

    assert server.reports[0].dropped == {"1002": "evaluation: no reply in time"}


def test_too_few_evaluations_name_who_is_missing():
    server = strategy(3, evaluate=True)

    with pytest.raises(AggregationError, match=r"found 2\. Left out:.*1002"):
        server.start(SilentGrid(scoring_app(), 3), num_rounds=0)


def test_an_error_in_an_evaluation_keeps_its_reason():
    def fail(index: int, content: RecordDict) -> None:
        if index == 2:
            raise MemoryError("out of memory")

    server = strategy(3, evaluate=True, min_replies=2)
    server.start(InProcessGrid(scoring_app(fail), 3), num_rounds=0)

    assert "out of memory" in server.reports[0].dropped["1002"]


def test_who_is_missing_is_called_by_name_once_it_is_known():
    def late(index: int, reply: Message) -> Message:
        number = reply.content.config_records[CONFIG]["server-round"]
        if index == 2 and int(number) == 2:
            raise MemoryError("out of memory")
        return reply

    with pytest.raises(AggregationError, match=r"Left out: \('client-2', .error 2"):
        run(grid=InProcessGrid(client_app(CLIENTS, late), 3))
