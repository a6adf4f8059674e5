"""Damage: what is warned of, and that a refused round leaves nothing behind."""

from dataclasses import replace

import pytest
import torch
from federation import MODEL, Edits, client_app, strategy
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from long_runs import D4S, contradicting
from safetensors.torch import load_file

from flwr_collabedit.conflict_resolution import Resolution
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.payloads import ARRAYS, CONFIG, METRICS, read_deltas
from flwr_collabedit.strategies import (
    DeclarationRules,
    RoundGuard,
    RoundReport,
    Withdrawal,
)
from simulations.in_process import InProcessGrid

NOTHING = Edits.random(0, 0)
BASE_LOSS = 2.0
NORM = "l1/layer.0"
HISTORIES = {
    "none": {},
    "dynamic-covariance": {"history": "dynamic-covariance"},
    "d4s": D4S,
}


def health(text_loss, norm=10.0):
    """Return a client's sums: its perplexity is ``exp(text_loss)``."""
    found = {
        "text-loss": (10 * text_loss, 10),
        "base/text-loss": (10 * BASE_LOSS, 10),
        NORM: (norm, 1),
        f"base/{NORM}": (10.0, 1),
    }
    return {
        f"{name}/{part}": value
        for name, pair in found.items()
        for part, value in zip(("sum", "count"), pair, strict=True)
    }


def with_health(app, losses, seen=None):
    """Let all clients report these losses, by round; what they are sent is kept."""

    @app.evaluate()
    def evaluate(message, context):
        asked = Instruction.from_config(message.content.config_records[CONFIG])
        if seen is not None:
            arrays = message.content.array_records[ARRAYS]
            seen[asked.server_round] = list(read_deltas(arrays, MODEL).values())
        loss = losses[asked.server_round]
        figures = {} if loss is None else health(loss)
        content = RecordDict(
            {
                METRICS: MetricRecord({"num-examples": 0, "loss": 0.0, **figures}),
                CONFIG: ConfigRecord({"sender": "c", **asked.reply_config()}),
            }
        )
        return Message(content, reply_to=message)

    return app


def rounds_of(num_clients=2, num_rounds=4):
    return [
        [Edits.random(3, 100 * client + number) for number in range(num_rounds)]
        for client in range(num_clients)
    ]


def run(clients, losses=(BASE_LOSS,) * 5, num_rounds=4, *, seen=None, back=None, **o):
    guard = RoundGuard(max_perplexity_increase=0.5)
    found = {"evaluate": True, "guard": guard, **o}
    server = strategy(len(clients), **found)
    app = with_health(client_app(clients, withdrawals=back), losses, seen)
    result = server.start(InProcessGrid(app, len(clients)), num_rounds=num_rounds)
    return server, result


def report(perplexity=10.0, norm=10.0):
    return RoundReport(
        2,
        health={"perplexity": perplexity, "base-perplexity": 10.0},
        weight_norms={NORM: norm, "l2/layer.0": 99.0},
        base_norms={NORM: 10.0, "l2/layer.0": 1.0},
    )


def test_what_passes_a_bound_is_warned_of_and_nothing_else():
    guard = RoundGuard(warn_perplexity_increase=0.2, warn_norm_increase=0.05)

    assert guard.warnings(report(perplexity=11.99, norm=10.49)) == []
    (words,) = guard.warnings(report(perplexity=12.01))
    assert "Round 2: perplexity" in words
    assert "20.1 % above" in words
    assert "(12.010 against 10.000)" in words
    (words,) = guard.warnings(report(norm=10.51))
    assert "L1 norm of layer.0 is 5.1 % above" in words
    assert len(guard.warnings(report(perplexity=13, norm=11))) == 2
    assert guard.warnings(replace(report(), health={})) == []


def test_the_bound_itself_is_not_refused():
    guard = RoundGuard(max_perplexity_increase=0.5)

    assert guard.refusal(report(perplexity=15.0)) == ""
    assert "50.1 % above the unedited" in guard.refusal(report(perplexity=15.01))
    assert RoundGuard().refusal(report(perplexity=1e9)) == ""


def refusing(*rounds):
    return [BASE_LOSS + (number in rounds) for number in range(5)]


@pytest.mark.parametrize("refused", [(1,), (2,), (2, 3), (4,)])
@pytest.mark.parametrize("history", HISTORIES)
def test_a_refused_round_is_as_if_its_edits_were_empty(history, refused):
    clients, seen = rounds_of(), {}

    server, result = run(clients, refusing(*refused), seen=seen, **HISTORIES[history])

    empty = [
        [NOTHING if r in refused else e for r, e in enumerate(own, start=1)]
        for own in clients
    ]
    expected, _ = run(empty, **HISTORIES[history])
    found = read_deltas(result.arrays, MODEL)
    for name, delta in expected.state.deltas.items():
        assert torch.equal(server.state.deltas[name], delta)
        assert torch.equal(found[name], delta)
    assert server.state.took_part == expected.state.took_part
    assert [bool(r.refused) for r in server.reports[1:]] == [
        number in refused for number in range(1, 5)
    ]
    # Clients have scored what was refused, not what it was taken back to.
    before = [torch.zeros_like(delta) for delta in seen[1]]
    for number in range(1, 5):
        pairs = zip(seen[number], before, strict=True)
        assert any((a - b).norm() > 1e-3 for a, b in pairs)
        before = before if number in refused else seen[number]


@pytest.mark.parametrize("form", ["factors", "dense"])
@pytest.mark.parametrize("by_client", [True, False])
def test_what_was_to_be_taken_back_before_a_refused_round_stays_out(by_client, form):
    clients, options = rounds_of(), {**D4S, "form": form}
    if by_client:
        options["declarations"] = DeclarationRules(take_back=True)
        back = {(1, 3): EditSet.of({1: None, 2: None})}
    else:
        options["withdrawals"] = [Withdrawal.parse("client:client-1@3")]
        back = None

    server, _ = run(clients, refusing(3), num_rounds=3, back=back, **options)

    expected, _ = run(clients[:1], num_rounds=2, **D4S)
    for name, delta in expected.state.deltas.items():
        assert (server.state.deltas[name] - delta).norm() < 1e-9 * delta.norm()
    assert server.state.inactive == {
        "client-0": EditSet.of({3: None}),
        "client-1": EditSet.of({1: None, 2: None, 3: None}),
    }
    assert server.state.took_part == {"client-0": (1, 2), "client-1": (1, 2)}


def test_all_of_the_state_is_that_before_the_refused_round(tmp_path):
    clients = rounds_of(num_rounds=2)
    clients[1][1] = contradicting(clients[0][0], 7)
    options = {
        **D4S,
        "declarations": DeclarationRules(resolution=Resolution("last-come")),
        "checkpoint_folder": tmp_path,
        "keep_checkpoints": 0,
    }

    server, _ = run(clients, refusing(2), num_rounds=2, **options)

    assert server.reports[2].declared["withdrawn"] == 3
    assert "171.8 % above" in server.reports[2].refused
    before, gone = server._before, EditSet.of({2: None})
    assert server.state.deltas is before.deltas
    assert server.state.history is before.history
    assert server.state.ledger is before.ledger
    assert set(server.state.took_part) == {"client-0", "client-1"}
    never_written = {"client-0": gone, "client-1": gone}
    assert server.state.inactive == server.state.left_out == never_written
    assert {entry.round for entry in server.state.tagged} == {1}
    assert {entry.server_round for entry in server.state.ledger.entries} == {1}
    first, second = (load_file(tmp_path / f"round-0000{n}.safetensors") for n in (1, 2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_goes_on_from_a_checkpoint_after_a_refused_round(tmp_path):
    clients, options = rounds_of(), {**D4S, "checkpoint_folder": tmp_path}

    whole, _ = run(clients, refusing(2), **D4S)
    run(clients, refusing(2), num_rounds=2, **options)
    resumed, result = run(clients, refusing(2), **options)

    for name, delta in whole.state.deltas.items():
        assert torch.equal(resumed.state.deltas[name], delta)
    assert [bool(r.refused) for r in resumed.reports] == [
        bool(r.refused) for r in whole.reports
    ]
    assert list(result.evaluate_metrics_clientapp) == [1, 2, 3, 4]


def test_warnings_are_logged_and_reported_but_undo_nothing(caplog):
    guard = RoundGuard(warn_perplexity_increase=0.5)

    server, _ = run(rounds_of(), refusing(0, 2), guard=guard)

    assert [len(r.warnings) for r in server.reports] == [0, 0, 1, 0, 0]
    assert "171.8 % above" in server.reports[2].warnings[0]
    assert [r.refused for r in server.reports] == [""] * 5
    assert server.state.took_part["client-0"] == (1, 2, 3, 4)


def test_a_bound_without_a_perplexity_is_an_error():
    with pytest.raises(ConfigurationError, match="no client has measured a perplexity"):
        run(rounds_of(), [None] * 5)


@pytest.mark.parametrize("options", [{"evaluate_every": 2}, {"evaluate": False}])
def test_a_bound_needs_every_round_evaluated(options):
    with pytest.raises(ConfigurationError, match="Set evaluate_every to 1"):
        run(rounds_of(), **options)


@pytest.mark.parametrize(
    "name",
    ["max_perplexity_increase", "warn_perplexity_increase", "warn_norm_increase"],
)
def test_bounds_must_be_positive(name):
    with pytest.raises(ConfigurationError, match=f"{name} above 0, found 0"):
        RoundGuard(**{name: 0.0})
