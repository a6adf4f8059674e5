"""What one party is to edit so that it has what the federation wrote."""

from itertools import chain
from types import SimpleNamespace

import pytest

from flwr_collabedit.algebra.history import EditHistory
from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.strategies.round_report import RoundReport
from flwr_collabedit.strategies.server_state import ServerState
from simulations.written import active_cases, written_requests


def case(number):
    request = EditRequest(case_id=number, prompt="{} is", subject="It", target_new="x")
    return EvaluationCase(request=request, paraphrase_prompts=("Now It is",))


# Cases 100 * client + 10 * round + place; two clients, three rounds.
CLIENTS = [
    [[case(100 * c + 10 * r + p) for p in range(2)] for r in (1, 2, 3)] for c in (0, 1)
]
ALL = {"client-0": (1, 2, 3), "client-1": (1, 2, 3)}
EVERY = [[10, 11, 110, 111], [20, 21, 120, 121], [30, 31, 130, 131]]
LEFT_OUT = {"client-1": EditSet.of({2: [0]})}
INACTIVE = {"client-1": EditSet.of({2: [0]}), "client-0": EditSet.of({1: None})}


def strategy(refused=(), history="none", **state):
    reports = [RoundReport(r, refused="bad" * (r in refused)) for r in (1, 2, 3)]
    found = ServerState(history=EditHistory(history), **{"took_part": ALL, **state})
    return SimpleNamespace(reports=reports, state=found)


def written(**options):
    found = written_requests(CLIENTS, strategy(**options))
    return [[request.case_id for request in requests] for requests in found]


def active(**options):
    return [c.request.case_id for c in active_cases(CLIENTS, strategy(**options))]


def test_everything_is_written_and_counts():
    assert written() == EVERY
    assert sorted(active()) == sorted(chain(*EVERY))


@pytest.mark.parametrize("history", ["none", "dynamic-covariance"])
def test_what_was_left_out_is_not_written_and_what_was_withdrawn_is(history):
    state = {"left_out": LEFT_OUT, "inactive": INACTIVE, "history": history}

    assert written(**state) == [EVERY[0], [20, 21, 121], EVERY[2]]
    assert active(**state) == [20, 21, 30, 31, 110, 111, 121, 130, 131]


def test_with_d4s_what_was_withdrawn_was_never_written():
    state = {"left_out": LEFT_OUT, "inactive": INACTIVE, "history": "d4s"}

    assert written(**state) == [[110, 111], [20, 21, 121], EVERY[2]]


def test_an_undone_round_wrote_nothing():
    assert written(refused=[2]) == [EVERY[0], [], EVERY[2]]


def test_a_client_that_took_no_part_wrote_nothing():
    took_part = {"client-0": (1, 3), "client-1": (2,)}

    assert written(took_part=took_part) == [[10, 11], [120, 121], [30, 31]]


def test_strategies_without_an_account_wrote_all():
    assert written(took_part={}) == EVERY


def test_an_augmented_edit_was_written_with_its_paraphrases():
    found = written(augmented={"client-0": EditSet.of({2: [1]})})

    assert found[1] == [20, 21, "21-paraphrase-0", 120, 121]
    assert [found[0], found[2]] == [EVERY[0], EVERY[2]]
