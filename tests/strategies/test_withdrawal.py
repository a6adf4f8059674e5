"""What is withdrawn leaves no trace, and what was never added cannot be withdrawn."""

import pytest
import torch
from federation import MODEL, Edits, client_app, strategy
from flwr.serverapp.exception import AggregationError
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_collabedit.errors import ConfigurationError, WithdrawalError
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.messages.payloads import read_deltas
from flwr_collabedit.strategies import DeclarationRules, Withdrawal
from simulations.in_process import InProcessGrid

NOTHING = Edits.random(0, 0)
TAKE_BACK = DeclarationRules(take_back=True)


def rounds_of(seed, num_rounds=3):
    return [Edits.random(3, 100 * seed + number) for number in range(num_rounds)]


def run(clients, num_rounds=3, *, withdraw=(), back=None, **options):
    if back:
        options["declarations"] = TAKE_BACK
    options = {"history": "d4s", "layer_schedule": "frozen", **options}
    due = [Withdrawal.parse(text) for text in withdraw]
    server = strategy(len(clients), withdrawals=due, **options)
    grid = InProcessGrid(client_app(clients, withdrawals=back), len(clients))
    result = server.start(grid, num_rounds=num_rounds)
    return list(read_deltas(result.arrays, MODEL).values()), server


def without(clients, gone):
    """Return the clients' rounds without some edits, by (client, round)."""
    return [
        [
            edits.take([p for p in range(3) if p not in gone.get((i, r), ())])
            for r, edits in enumerate(own, start=1)
        ]
        for i, own in enumerate(clients)
    ]


def gap(found, expected):
    pairs = zip(found, expected, strict=True)
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


@settings(max_examples=15, deadline=None)
@given(who=st.integers(0, 3), when=st.integers(2, 5))
def test_a_withdrawn_client_leaves_the_bits_of_a_run_without_it(who, when):
    clients = [rounds_of(seed, 5) for seed in range(4)]
    gone = {(who, r): range(3) for r in range(1, when)}

    found, server = run(clients, 5, withdraw=[f"client:client-{who}@{when}"])

    expected, _ = run(without(clients, gone), 5)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert server.reports[when - 1].declared["withdrawn"] == 3 * (when - 1)


@pytest.mark.parametrize("form", ["factors", "dense"])
def test_a_round_is_withdrawn_with_and_without_a_ledger(form):
    clients = [rounds_of(seed) for seed in range(3)]

    found, server = run(clients, withdraw=["round:1@3"], form=form)

    gone = {(i, 1): range(3) for i in range(3)}
    expected, _ = run(without(clients, gone), form=form)
    assert gap(found, expected) < 1e-9
    assert server.reports[2].declared["withdrawn"] == 9
    assert bool(server.state.ledger.entries) == (form == "factors")


def test_clients_without_a_ledger_measure_again_what_is_withdrawn():
    clients = [rounds_of(seed) for seed in range(3)]

    found, _ = run(clients, withdraw=["client:client-1@3"], form="dense")

    gone = {(1, 1): range(3), (1, 2): range(3)}
    assert gap(found, run(without(clients, gone))[0]) < 1e-9


@settings(max_examples=15, deadline=None)
@given(
    places=st.sets(st.integers(0, 2), min_size=1),
    form=st.sampled_from(["factors", "dense"]),
)
def test_a_client_takes_single_edits_back(places, form):
    clients = [rounds_of(seed) for seed in range(2)]
    back = {(1, 3): EditSet.of({1: sorted(places)})}

    found, server = run(clients, back=back, form=form)

    expected, _ = run(without(clients, {(1, 1): places}), form=form)
    assert gap(found, expected) < 1e-9
    assert server.reports[2].declared["withdrawn"] == len(places)


def test_what_is_left_of_a_client_is_withdrawn_after_single_edits_were():
    clients = [rounds_of(seed, 4) for seed in range(2)]
    back = {(1, 2): EditSet.of({1: [0, 2]})}

    found, _ = run(clients, 4, back=back, withdraw=["client:client-1@4"])

    gone = {(1, r): range(3) for r in (1, 2, 3)}
    assert gap(found, run(without(clients, gone), 4)[0]) < 1e-9


def test_an_update_is_a_withdrawal_and_an_edit():
    old, new = Edits.random(1, 5), Edits.random(1, 6)
    updated = Edits(old.seeds, new.goals)

    found, _ = run([[old, updated]], 2, back={(0, 2): EditSet.of({1: None})})

    assert gap(found, run([[updated]], 1)[0]) < 1e-9


@pytest.mark.parametrize(
    "withdraw", [["client:client-9@2"], ["client:client-1@2", "client:client-1@3"]]
)
def test_what_is_not_in_force_cannot_be_withdrawn_and_the_state_stays(withdraw):
    clients = [rounds_of(0), [Edits.random(2, 1), NOTHING, NOTHING]]
    server = strategy(
        2,
        history="d4s",
        layer_schedule="frozen",
        withdrawals=[Withdrawal.parse(text) for text in withdraw],
    )
    grid = InProcessGrid(client_app(clients), 2)
    if len(withdraw) == 2:
        clients[1] = [Edits.random(2, 1)]

    with pytest.raises(
        WithdrawalError, match="Took part so far: 'client-0', 'client-1'"
    ):
        server.start(grid, num_rounds=3)

    assert max(r for rounds in server.state.took_part.values() for r in rounds) == len(
        withdraw
    )


def test_a_client_that_takes_back_what_it_never_added_is_left_out():
    clients = [rounds_of(0), rounds_of(1)]
    back = {(1, 2): EditSet.of({3: None})}

    found, server = run(clients, 2, back=back, min_replies=1)

    (reason,) = server.reports[1].dropped.values()
    assert "round 3 that are not in force; it took part in rounds [1]" in reason
    expected, _ = run([clients[0], [clients[1][0], NOTHING]], 2)
    assert gap(found, expected) < 1e-9


def test_the_same_edit_cannot_be_taken_back_twice():
    clients = [rounds_of(0), rounds_of(1)]
    back = {(1, 2): EditSet.of({1: [0]}), (1, 3): EditSet.of({1: [0, 1]})}

    with pytest.raises(AggregationError, match="not in force"):
        run(clients, back=back)


@pytest.mark.parametrize("form", ["factors", "dense"])
def test_the_rest_of_a_round_is_taken_back_after_single_edits(form):
    clients = [rounds_of(0, 4), rounds_of(1, 4)]
    back = {(1, 2): EditSet.of({1: [0]}), (1, 3): EditSet.of({1: None})}

    found, server = run(clients, 4, back=back, form=form)

    expected, _ = run(without(clients, {(1, 1): range(3)}), 4, form=form)
    assert gap(found, expected) < 1e-9
    assert [r.declared.get("withdrawn") for r in server.reports] == [None, 1, 2, None]
    back[1, 4] = EditSet.of({1: None})
    with pytest.raises(AggregationError, match="not in force"):
        run(clients, 4, back=back, form=form)


def test_a_place_that_no_edit_had_is_refused():
    clients = [rounds_of(0), rounds_of(1)]
    server = strategy(2, history="d4s", layer_schedule="frozen", declarations=TAKE_BACK)
    app = client_app(clients, withdrawals={(1, 2): EditSet.of({1: [2, 3]})})

    with pytest.raises(WithdrawalError, match="takes back 2 edits of round 1, and has"):
        server.start(InProcessGrid(app, 2), num_rounds=2)
    assert server.state.took_part == {"client-0": (1,), "client-1": (1,)}
    assert not server.state.inactive


def test_a_round_that_fails_after_a_withdrawal_leaves_the_state(tmp_path):
    def failing(index, reply):
        if index == 0 and reply.metadata.group_id == "2":
            raise MemoryError("out of memory")
        return reply

    server = strategy(
        2,
        history="d4s",
        layer_schedule="frozen",
        withdrawals=[Withdrawal.parse("client:client-1@2")],
        checkpoint_folder=tmp_path,
    )
    app = client_app([rounds_of(0), rounds_of(1)], tamper=failing)

    with pytest.raises(AggregationError, match="out of memory"):
        server.start(InProcessGrid(app, 2), num_rounds=2)

    assert not server.state.inactive
    assert server.state.ledger.num_edits("client-1") == 3
    expected, _ = run([rounds_of(0, 1), rounds_of(1, 1)], 1)
    assert gap(server.state.deltas.values(), expected) < 1e-12


def test_statistics_that_were_never_added_are_refused():
    clients = [rounds_of(0), rounds_of(1)]
    app = client_app(clients, withdrawals={(1, 2): EditSet.of({1: [0]})})

    def lying(message, context):
        reply = app(message, context)
        if message.content.config_records["config"]["phase"] == "withdraw":
            for key, array in reply.content.array_records["arrays"].items():
                reply.content.array_records["arrays"][key] = type(array)(
                    30 * array.numpy()
                )
        return reply

    server = strategy(2, history="d4s", layer_schedule="frozen", declarations=TAKE_BACK)
    with pytest.raises(WithdrawalError, match="'client-1' takes back was never added"):
        server.start(InProcessGrid(lying, 2), num_rounds=2)
    assert server.state.took_part == {"client-0": (1,), "client-1": (1,)}


@pytest.mark.parametrize(
    "text", ["client-2@5", "client:@5", "round:x@5", "round:5@5", "x:1@2"]
)
def test_a_withdrawal_that_cannot_be_read_is_refused(text):
    with pytest.raises(ConfigurationError, match=r"Expected .*withdrawal"):
        Withdrawal.parse(text)


@pytest.mark.parametrize("history", ["none", "dynamic-covariance"])
def test_other_histories_cannot_withdraw(history):
    for options in (
        {"withdrawals": [Withdrawal.parse("round:1@2")]},
        {"declarations": TAKE_BACK},
    ):
        with pytest.raises(ConfigurationError, match="Use history 'd4s'"):
            strategy(1, history=history, **options)
