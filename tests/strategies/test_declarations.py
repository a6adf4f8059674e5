"""Declared conflicts: who stays, who is left out or taken out, and what is refused."""

import pytest
import torch
from federation import MODEL, Edits, client_app, strategy
from flwr.app import ConfigRecord
from flwr.serverapp.exception import AggregationError
from long_runs import D4S, contradicting, joined

from flwr_collabedit.conflict_resolution import Resolution
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.messages.declaration import DECLARATION, Declaration
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.messages.payloads import CONFIG
from flwr_collabedit.strategies import DeclarationRules
from simulations.in_process import InProcessGrid

NOTHING = Edits.random(0, 0)
FACT = Edits.random(1, 50)
OTHER, THIRD = contradicting(FACT, 51), contradicting(FACT, 52)


def rules(policy, overlap="all", **options):
    priority = ("client-2", "client-1") if policy == "priority" else ()
    return DeclarationRules(resolution=Resolution(policy, overlap, priority), **options)


def run(clients, num_rounds, declarations=None, tamper=lambda index, reply: reply, **o):
    server = strategy(len(clients), declarations=declarations, **o)
    grid = InProcessGrid(client_app(clients, tamper), len(clients))
    server.start(grid, num_rounds=num_rounds)
    return server


def gap(found, expected):
    return max(
        float((found.state.deltas[n] - d).norm() / d.norm())
        for n, d in expected.state.deltas.items()
    )


def own(*seeds):
    """Return a client's rounds of two facts each that nobody else has."""
    return [Edits.random(2, seed) for seed in seeds]


def without(clients, gone):
    """Return the clients' rounds without the third edits of (client, round)."""
    return [
        [e.take([0, 1]) if (c, r) in gone else e for r, e in enumerate(rounds, start=1)]
        for c, rounds in enumerate(clients)
    ]


# The third edit of each is about the same fact: 0 and 2 want one target, 1 another.
def in_one_round():
    extra = (FACT, OTHER, FACT)
    return [[joined(*own(i), extra[i])] for i in range(3)]


@pytest.mark.parametrize("history", [{}, D4S], ids=["none", "d4s"])
@pytest.mark.parametrize(
    ("policy", "overlap", "losers"),
    [
        ("report", "all", []),
        ("report", "once", [2]),
        ("first-come", "all", [1]),
        ("first-come", "once", [1, 2]),
        ("last-come", "all", [1]),
        ("majority", "all", [1]),
        ("priority", "all", [1]),
    ],
)
def test_losers_of_one_round_leave_their_edit_out(policy, overlap, losers, history):
    clients = in_one_round()

    server = run(clients, 1, rules(policy, overlap), **history)

    gone = {(loser, 1) for loser in losers}
    assert gap(server, run(without(clients, gone), 1, **history)) < 1e-12
    left_out = {f"client-{loser}": EditSet.of({1: [2]}) for loser in losers}
    assert server.state.left_out == server.state.inactive == left_out
    counts = {"conflicts": 1, "overlaps": 1, "present": 0, "left-out": len(losers)}
    assert server.reports[0].declared == counts
    tagged = {(entry.client, entry.index) for entry in server.state.tagged}
    assert len(tagged) == 9 - len(losers)
    assert not tagged & {(f"client-{loser}", 2) for loser in losers}


# Round 1: client 0 has the fact. Round 2: 1 contradicts it. Round 3: 2 agrees with 1.
def over_rounds():
    clients = [own(10 + i, 20 + i, 30 + i) for i in range(3)]
    for client, edit in enumerate((FACT, OTHER, OTHER)):
        rounds = clients[client]
        rounds[client] = joined(rounds[client], edit)
    return clients


@pytest.mark.parametrize(
    ("policy", "losers", "when"),
    [
        ("report", {}, []),
        ("first-come", {1: 2, 2: 3}, []),
        ("last-come", {0: 1}, [2]),
        ("priority", {0: 1}, [2]),
        # One against one leaves the first; then 2 is alone against it again.
        ("majority", {1: 2, 2: 3}, []),
    ],
)
@pytest.mark.parametrize("form", ["factors", "dense"])
def test_over_rounds_d4s_is_a_run_in_which_the_losers_never_were(
    policy, losers, when, form
):
    clients = over_rounds()

    server = run(clients, 3, rules(policy), form=form, **D4S)

    gone = {(client, number) for client, number in losers.items()}
    assert gap(server, run(without(clients, gone), 3, form=form, **D4S)) < 1e-9
    inactive = {f"client-{c}": EditSet.of({r: [2]}) for c, r in losers.items()}
    assert server.state.inactive == inactive
    withdrawn = [r.server_round for r in server.reports if "withdrawn" in r.declared]
    assert withdrawn == when


@pytest.mark.parametrize(
    ("policy", "inactive", "never_written"),
    [("last-come", {0: 1}, {}), ("first-come", {1: 2, 2: 3}, {1: 2, 2: 3})],
)
def test_without_withdrawal_the_earlier_loser_stays_written_and_counts_no_more(
    policy, inactive, never_written
):
    clients = over_rounds()

    server = run(clients, 3, rules(policy))

    written = without(clients, set(never_written.items()))
    assert gap(server, run(written, 3)) < 1e-12
    state = server.state
    assert state.inactive == {
        f"client-{c}": EditSet.of({r: [2]}) for c, r in inactive.items()
    }
    assert set(state.left_out) == {f"client-{c}" for c in never_written}
    assert all("withdrawn" not in report.declared for report in server.reports)


def test_an_earlier_loser_has_no_say_later():
    third = [own(40), own(41), [NOTHING, NOTHING, FACT]]
    clients = [[FACT], [NOTHING, OTHER], third[2]]

    # 1 beats 0 in round 2; in round 3 the fact's first target comes anew and wins.
    server = run(clients, 3, rules("last-come"), **D4S)

    assert gap(server, run([[FACT]], 1, **D4S)) < 1e-9
    assert [e.client for e in server.state.tagged] == ["client-2"]
    declared = [report.declared for report in server.reports]
    assert [d["conflicts"] for d in declared] == [0, 1, 1]
    assert [d["overlaps"] for d in declared] == [0, 0, 0]


def test_left_out_edits_have_no_vote_later():
    clients = [[FACT], [NOTHING, OTHER], [OTHER]]

    # Round 1: one to one, the first stays and 2 leaves its own out, without a say.
    server = run(clients, 2, rules("majority"), **D4S)
    assert set(server.state.inactive) == {"client-1", "client-2"}

    # All in one round: two to one.
    server = run([[FACT], [OTHER], [OTHER]], 1, rules("majority"), **D4S)
    assert set(server.state.inactive) == {"client-0"}


def changed(**fields):
    """Return what makes client 1 declare something else."""

    def tamper(index, reply):
        config = reply.content.config_records[CONFIG]
        if index == 1 and DECLARATION in config:
            said = Declaration.from_json(config[DECLARATION])
            text = said.model_copy(update=fields).model_dump_json()
            reply.content[CONFIG] = ConfigRecord({**config, DECLARATION: text})
        return reply

    return tamper


def test_keys_that_differ_end_the_run_and_the_state_stays():
    server = strategy(3, declarations=rules("first-come"), **D4S)
    clients = over_rounds()
    server.start(InProcessGrid(client_app(clients), 3), num_rounds=1)
    before = server.state
    other_key = changed(key_check="another key")
    grid = InProcessGrid(client_app(clients, other_key), 3)

    with pytest.raises(AggregationError, match=r"2 keys: .*'client-0', 'client-2'"):
        server.configure_train(2, server.initial_arrays(), ConfigRecord(), grid)

    assert server.state is before
    assert len(server.reports) == 1


@pytest.mark.parametrize(
    ("fields", "options", "reason"),
    [
        ({"fact_tags": (), "target_tags": ()}, {}, "fact_tags of all 3 edits, found 0"),
        ({}, {"presence": "answer"}, "presence of all 3 edits, found 0"),
        ({"num_edits": 2}, {}, "3 entries"),
        ({"take_back": EditSet.of({1: [0]}).to_json()}, {}, "does not allow"),
        ({"take_back": "[1]"}, {}, "Expected a set of edits"),
    ],
)
def test_an_incomplete_declaration_costs_nobody_else(fields, options, reason):
    clients = in_one_round()
    said = (0.0, 0.0, 0.0)

    def tamper(index, reply):
        if index != 1 and options:
            return changed(presence=said)(1, reply)
        return changed(**fields)(index, reply)

    server = run(
        *(clients, 1, rules("first-come", **options), tamper), min_replies=2, **D4S
    )

    (why,) = server.reports[0].dropped.values()
    assert reason in why
    clients[1] = [NOTHING]
    assert gap(server, run(clients, 1, **D4S)) < 1e-12


@pytest.mark.parametrize("skip", [True, False])
def test_present_edits_are_left_out_or_counted_only(skip):
    clients = in_one_round()
    presence = DeclarationRules(
        presence="residual", present_from=0.6, skip_present=skip
    )

    def tamper(index, reply):
        return changed(presence=((0.0, 0.59, 0.6) if index else (0.0,) * 3))(1, reply)

    server = run(clients, 1, presence, tamper, **D4S)

    gone = {(1, 1), (2, 1)} if skip else set()
    assert gap(server, run(without(clients, gone), 1, **D4S)) < 1e-12
    assert server.reports[0].declared == {"present": 2, "left-out": 2 * skip}
    assert set(server.state.left_out) == ({"client-1", "client-2"} if skip else set())


def test_an_edit_that_is_present_takes_no_part_in_conflicts():
    def tamper(index, reply):
        return changed(presence=(0.0, 0.0, float(index == 0)))(1, reply)

    found = rules("first-come", presence="answer", skip_present=True)
    server = run(in_one_round(), 1, found, tamper, **D4S)

    # Without client 0's, the first is that of client 1.
    assert set(server.state.left_out) == {"client-0", "client-2"}
    counts = {"present": 1, "conflicts": 1, "overlaps": 0, "left-out": 2}
    assert server.reports[0].declared == counts


def test_who_comes_first_in_a_round_is_not_whose_message_did():
    def last_first(messages):
        return list(reversed(list(messages)))

    states = []
    for turned in (list, last_first):
        grid = InProcessGrid(client_app(in_one_round()), 3)
        pull = grid.pull_messages
        grid.pull_messages = lambda ids, pull=pull, turned=turned: turned(pull(ids))
        server = strategy(3, declarations=rules("first-come"), **D4S)
        server.start(grid, num_rounds=1)
        states.append(server.state)

    assert states[0].tagged == states[1].tagged
    assert states[0].inactive == states[1].inactive
    for name in MODEL.parameters:
        assert torch.equal(states[0].deltas[name], states[1].deltas[name])


@pytest.mark.parametrize(
    "options", [{"present_from": 0.0}, {"present_from": 1.1}, {"skip_present": True}]
)
def test_rules_out_of_range_are_refused(options):
    with pytest.raises(ConfigurationError, match=r"present"):
        DeclarationRules(**options)
