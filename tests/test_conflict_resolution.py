"""One target survives where clients contradict each other; nothing else is touched."""

import random
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_collabedit.conflict_resolution import (
    Decision,
    Entry,
    FactGroup,
    Policy,
    Resolution,
    find_groups,
)
from flwr_collabedit.errors import ConfigurationError, PayloadError

CLIENTS = ("ann", "bob", "cem", "dee")
RESOLVING: tuple[Policy, ...] = ("first-come", "last-come", "priority", "majority")
NOW = 3


def resolution(policy: Policy, **options: str) -> Resolution:
    priority = ("dee", "bob") if policy == "priority" else ()
    return Resolution(policy, priority=priority, **options)


@st.composite
def entry_lists(draw: st.DrawFn) -> list[Entry]:
    """Some rounds, in each some clients in some order, few facts and few targets."""
    entries = []
    for number in range(1, NOW + 1):
        clients = draw(st.permutations(CLIENTS))[: draw(st.integers(0, 4))]
        for arrival, client in enumerate(clients):
            pairs = st.tuples(st.sampled_from("fgh"), st.sampled_from("xyz"))
            for index, (fact, target) in enumerate(draw(st.lists(pairs, max_size=3))):
                entries.append(Entry(client, number, arrival, index, fact, target))
    return entries


def targets_of(entries: list[Entry]) -> dict[str, set[str]]:
    found = defaultdict(set)
    for entry in entries:
        found[entry.fact].add(entry.target)
    return dict(found)


def kept(decisions: list[Decision]) -> list[Entry]:
    return [decision.entry for decision in decisions if decision.action == "keep"]


every_policy = pytest.mark.parametrize("policy", RESOLVING)
every_overlap = pytest.mark.parametrize("overlap", ["all", "once"])


@every_policy
@every_overlap
@given(entries=entry_lists())
def test_exactly_one_target_of_every_fact_survives(policy, overlap, entries):
    decisions = resolution(policy, overlap=overlap).decide(entries, NOW)

    survivors = targets_of(kept(decisions))
    assert survivors.keys() == targets_of(entries).keys()
    assert all(len(targets) == 1 for targets in survivors.values())


@every_policy
@given(entries=entry_lists(), seed=st.integers(0, 99))
def test_the_order_of_the_list_does_not_matter(policy, entries, seed):
    shuffled = random.Random(seed).sample(entries, len(entries))

    decisions = resolution(policy, overlap="once").decide(entries, NOW)

    assert resolution(policy, overlap="once").decide(shuffled, NOW) == decisions
    assert sorted(entries, key=lambda entry: entry.order) == [
        decision.entry for decision in decisions
    ]


@every_policy
@given(entries=entry_lists())
def test_a_fact_without_conflict_is_never_touched(policy, entries):
    disputed = {fact for fact, own in targets_of(entries).items() if len(own) > 1}

    decisions = resolution(policy).decide(entries, NOW)

    for decision in decisions:
        if decision.entry.fact not in disputed:
            assert decision == Decision(decision.entry)


@every_policy
@given(entries=entry_lists())
def test_with_all_every_edit_of_the_winning_target_stays(policy, entries):
    decisions = resolution(policy).decide(entries, NOW)

    winner = targets_of(kept(decisions))
    for decision in decisions:
        wins = decision.entry.target in winner[decision.entry.fact]
        assert (decision.action == "keep") == wins
        assert decision.reason == ("" if wins else "conflict")


@every_policy
@given(entries=entry_lists())
def test_once_keeps_the_first_edit_of_the_target_that_all_would_keep(policy, entries):
    every = kept(resolution(policy).decide(entries, NOW))
    decisions = resolution(policy, overlap="once").decide(entries, NOW)

    first = {entry.fact: entry for entry in reversed(every)}
    assert {entry.fact: entry for entry in kept(decisions)} == first
    assert len(kept(decisions)) == len(first)
    for decision in decisions:
        is_repeat = decision.entry in every and decision.action != "keep"
        assert (decision.reason == "overlap") == is_repeat


@every_policy
@every_overlap
@given(entries=entry_lists())
def test_losers_of_earlier_rounds_withdraw_and_others_leave_out(
    policy, overlap, entries
):
    for decision in resolution(policy, overlap=overlap).decide(entries, NOW):
        if decision.action != "keep":
            is_written = decision.entry.round < NOW
            assert decision.action == ("withdraw" if is_written else "leave-out")


@given(entries=entry_lists())
def test_the_majoritys_winner_has_the_most_clients_and_came_first_among_equals(entries):
    votes = defaultdict(lambda: defaultdict(set))
    for entry in sorted(entries, key=lambda entry: entry.order):
        votes[entry.fact][entry.target].add(entry.client)

    survivors = targets_of(kept(resolution("majority").decide(entries, NOW)))

    for fact, clients in votes.items():
        most = max(map(len, clients.values()))
        best = [target for target, own in clients.items() if len(own) == most]
        assert survivors[fact] == {best[0]}


@given(entries=entry_lists())
def test_report_touches_nothing_and_with_once_only_repeats(entries):
    assert all(d == Decision(d.entry) for d in Resolution().decide(entries, NOW))

    once = kept(Resolution(overlap="once").decide(entries, NOW))
    pairs = [(entry.fact, entry.target) for entry in once]
    assert len(set(pairs)) == len(pairs)
    assert set(pairs) == {(entry.fact, entry.target) for entry in entries}


def entry(client: str, order: tuple[int, int, int], target: str) -> Entry:
    return Entry(client, *order, "f", target)


# x: ann first, then ann again; y: bob and cem; z: dee, last.
ENTRIES = [
    entry("ann", (1, 0, 0), "x"),
    entry("bob", (1, 1, 0), "y"),
    entry("ann", (2, 0, 0), "x"),
    entry("cem", (2, 1, 0), "y"),
    entry("dee", (2, 1, 1), "z"),
]


@pytest.mark.parametrize(
    ("policy", "priority", "winner"),
    [
        ("first-come", (), "x"),
        ("last-come", (), "z"),
        ("majority", (), "y"),
        ("priority", ("eve", "dee", "ann"), "z"),
        ("priority", ("cem", "ann"), "y"),
        ("priority", ("eve",), "x"),
    ],
)
def test_each_policy_by_hand(policy: Policy, priority: tuple[str, ...], winner: str):
    decisions = Resolution(policy, priority=priority).decide(ENTRIES, 2)

    assert {entry.target for entry in kept(decisions)} == {winner}


def test_the_decisions_of_one_conflict_by_hand():
    decisions = Resolution("majority", overlap="once").decide(ENTRIES, 2)

    assert [(d.action, d.reason) for d in decisions] == [
        ("withdraw", "conflict"),
        ("keep", ""),
        ("leave-out", "conflict"),
        ("leave-out", "overlap"),
        ("leave-out", "conflict"),
    ]


def test_a_round_counts_before_the_arrival_and_that_before_the_index():
    entries = [
        entry("ann", (2, 0, 0), "a"),
        entry("bob", (1, 1, 0), "b"),
        entry("cem", (1, 0, 1), "c"),
    ]

    first, *_, last = Resolution("first-come").decide(entries, 2)

    assert (first.entry.target, first.action) == ("c", "keep")
    assert last.entry.target == "a"


def test_a_client_that_contradicts_itself_has_one_edit_left():
    entries = [entry("ann", (1, 0, 0), "x"), entry("ann", (1, 0, 1), "y")]

    for policy, winner in zip(RESOLVING, "xyxx", strict=True):
        [survivor] = kept(resolution(policy).decide(entries, 1))
        assert survivor.target == winner


def test_groups_are_the_facts_that_come_more_than_once():
    repeated = Entry("ann", 1, 0, 1, "g", "x"), Entry("bob", 1, 1, 1, "g", "x")
    alone = Entry("ann", 1, 0, 2, "h", "x")

    groups = find_groups([alone, *reversed(repeated), *ENTRIES[1::-1]])

    assert groups == [FactGroup("f", tuple(ENTRIES[:2])), FactGroup("g", repeated)]
    assert [group.is_conflict for group in groups] == [True, False]
    assert [group.is_overlap for group in groups] == [False, True]
    assert list(groups[0].by_target) == ["x", "y"]


def test_a_conflict_may_be_an_overlap_too():
    [group] = find_groups(ENTRIES)

    assert group.is_conflict
    assert group.is_overlap
    assert group.by_target["y"] == (ENTRIES[1], ENTRIES[3])


def test_two_edits_at_one_place_are_refused():
    entries = [entry("ann", (1, 0, 0), "x"), entry("bob", (1, 0, 0), "x")]

    with pytest.raises(PayloadError, match=r"\(1, 0, 0\), .* 'ann' and 'bob'"):
        Resolution().decide(entries, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "first"}, "unknown conflict policy 'first'. Known: 'first-come'"),
        ({"overlap": "one"}, "unknown overlap 'one'. Known: 'once'"),
        ({"policy": "priority"}, r"found \[\] for 'priority'"),
        ({"policy": "majority", "priority": ("a",)}, r"found \['a'\] for 'majority'"),
        ({"policy": "priority", "priority": ("a", "b", "a")}, "every client once"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        Resolution(**options)
