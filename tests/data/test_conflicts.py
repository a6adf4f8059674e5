"""A contradicting case has another object of its relation, at a client without it."""

from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_collabedit.data.conflicts import (
    ConflictPair,
    assign_conflicts,
    conflict_pairs,
    conflicting_cases,
)
from flwr_collabedit.data.copies import share_copies
from flwr_collabedit.data.fact_world import embedded_cases
from flwr_collabedit.data.normal_form import fact_of, normal_form
from flwr_collabedit.data.partition import split_over_clients, split_over_rounds
from flwr_collabedit.data.requests import EditRequest, EvaluationCase, Question
from flwr_collabedit.errors import ConfigurationError, RequestFormatError


def make_case(
    number: int, new: str = "", true: str | None = "", relation: str = "", **changes
) -> EvaluationCase:
    """Case ``number``: relation P0, P1 or P2, and objects of that relation only."""
    relation = relation or f"P{number % 3}"
    request = EditRequest(
        case_id=number,
        prompt=changes.pop("prompt", "{} is"),
        subject=changes.pop("subject", f"subject {number}"),
        target_new=new or f"{relation} new {number % 4}",
        relation_id=relation,
    )
    true = f"{relation} true {number % 5}" if true == "" else true
    return EvaluationCase(request=request, target_true=true, **changes)


CASES = [make_case(number) for number in range(60)]


def by_id(cases: list[EvaluationCase]) -> dict[int | str, EvaluationCase]:
    return {case.request.case_id: case for case in cases}


@given(count=st.integers(0, 60), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_a_contradiction_is_the_same_fact_with_another_object(count: int, seed: int):
    made = conflicting_cases(CASES, count, seed=seed)

    originals = by_id(CASES)
    assert len({case.conflicts_with for case in made}) == len(made) == count
    for case in made:
        original = originals[case.conflicts_with]
        old, new = original.request, case.request
        assert new.case_id == f"{old.case_id}-conflict"
        assert fact_of(new) == fact_of(old)
        assert new.target_new not in (old.target_new, original.target_true)
        assert new.target_new.startswith(old.relation_id)
        undone = new.model_copy(
            update={"case_id": old.case_id, "target_new": old.target_new}
        )
        assert (
            case.model_copy(update={"request": undone, "conflicts_with": None})
            == original
        )


def test_contradictions_come_in_the_order_of_the_cases_and_the_seed_decides():
    made, again, other = (conflicting_cases(CASES, 20, seed=s) for s in (1, 1, 2))

    order = [case.conflicts_with for case in made]
    assert order == sorted(order)
    assert made == again
    assert [case.conflicts_with for case in other] != order


def test_all_other_objects_of_the_relation_are_drawn():
    drawn = {
        conflicting_cases(CASES[:30], 30, seed=seed)[0].request.target_new
        for seed in range(60)
    }

    objects = {f"P0 new {i}" for i in range(4)} | {f"P0 true {i}" for i in range(5)}
    assert drawn == objects - {"P0 new 0", "P0 true 0"}


def test_another_spelling_is_not_another_object():
    one, other = make_case(0, "Rome", "Paris", "P"), make_case(1, "ROME", "paris.", "P")

    with pytest.raises(ConfigurationError, match=r"expected 1 .* found 0"):
        conflicting_cases([one, other], 1)


def test_an_object_that_somebody_has_for_the_fact_already_is_not_drawn():
    cases = [
        make_case(0, "a", "b", "P", subject="Ada"),
        make_case(1, "c", "b", "P", subject="ada "),
        make_case(2, "d", None, "P"),
    ]

    for seed in range(20):
        # Both cases of Ada may only take "d", so that one of them gets nothing.
        one, other = conflicting_cases(cases, 2, seed=seed)
        assert (one.conflicts_with in (0, 1), other.conflicts_with) == (True, 2)
        assert one.request.target_new == "d"
        assert other.request.target_new in "abc"
    with pytest.raises(ConfigurationError, match=r"expected 3 .* found 2"):
        conflicting_cases(cases, 3)
    with pytest.raises(ConfigurationError, match=r"expected -1 .* found 0"):
        conflicting_cases(cases, -1)


def test_without_relation_the_template_is_the_relation():
    cases = [
        make_case(i, new, None).model_copy(
            update={
                "request": EditRequest(
                    case_id=i, prompt=prompt, subject=f"s{i}", target_new=new
                )
            }
        )
        for i, (prompt, new) in enumerate([("{} is", "a"), ("{} was", "b")])
    ]

    with pytest.raises(ConfigurationError, match="found 0"):
        conflicting_cases(cases, 1)


def test_a_contradiction_supports_nothing():
    related = (Question(prompt="subject 0 was", answer="x"),)
    case = make_case(0).model_copy(update={"related": related})

    made = conflicting_cases([case, *CASES[1:]], 60)

    assert made[0].conflicts_with == 0
    assert made[0].related == ()


def test_a_contradiction_of_a_copy_is_no_copy():
    copies = [case.model_copy(update={"copied_from": 1}) for case in CASES]

    assert conflicting_cases(copies, 60) == conflicting_cases(CASES, 60)


Split = list[list[list[EvaluationCase]]]


def make_split(num_clients: int, num_rounds: int, fraction: float = 0.0) -> Split:
    clients = split_over_clients(CASES, num_clients)
    return [
        split_over_rounds(cases, num_rounds)
        for cases in share_copies(clients, fraction)
    ]


def placed(split: Split) -> list[tuple[int, int, EvaluationCase]]:
    return [
        (client, number, case)
        for client, rounds in enumerate(split)
        for number, cases in enumerate(rounds)
        for case in cases
    ]


@pytest.mark.parametrize("later", [False, True])
@given(
    num_clients=st.integers(2, 5),
    num_rounds=st.integers(2, 4),
    share=st.floats(0, 0.4),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=30, deadline=None)
def test_conflicts_are_with_another_client_in_the_round_that_was_asked_for(
    later: bool, num_clients: int, num_rounds: int, share: float, seed: int
):
    split = make_split(num_clients, num_rounds, 0.1)

    found = assign_conflicts(split, share, later=later, seed=seed)

    holders = {
        case.request.case_id: (client, number)
        for client, number, case in placed(split)
        if case.copied_from is None
    }
    made = [entry for entry in placed(found) if entry[2].conflicts_with is not None]
    assert len(made) == round(share * 60)
    assert len({case.conflicts_with for _, _, case in made}) == len(made)
    for client, number, case in made:
        holder, written = holders[case.conflicts_with]
        own = [fact_of(c.request) for c in chain.from_iterable(found[client])]
        assert client != holder
        assert number > written if later else number == written
        assert own.count(fact_of(case.request)) == 1


def test_what_clients_have_stays_in_its_order():
    split = make_split(3, 2, 0.1)

    found = assign_conflicts(split, 0.3)

    without = [
        [[case for case in cases if case.conflicts_with is None] for cases in rounds]
        for rounds in found
    ]
    assert without == split
    assert found != split
    assert assign_conflicts(split, 0.0) == split


def test_the_seed_decides_the_conflicts():
    split = make_split(3, 2)

    one, again, other = (assign_conflicts(split, 0.2, seed=s) for s in (1, 1, 2))

    assert one == again
    assert one != other


def test_conflicts_land_at_all_clients_and_places():
    found = assign_conflicts(make_split(3, 2), 1.0)

    places = [
        [case.conflicts_with is not None for case in cases]
        for rounds in found
        for cases in rounds
    ]
    assert all(any(flags) for flags in places)
    assert not all(flags == sorted(flags) for flags in places)


def test_the_last_round_cannot_be_contradicted_later():
    split = make_split(3, 2)

    found = assign_conflicts(split, 0.5, later=True)

    assert sum(case.conflicts_with is not None for _, _, case in placed(found)) == 30
    with pytest.raises(ConfigurationError, match=r"expected 31 .* found 30"):
        assign_conflicts(split, 31 / 60, later=True)


def test_one_client_has_nobody_to_contradict_it():
    with pytest.raises(ConfigurationError, match=r"expected 1 .* found 0"):
        assign_conflicts([[CASES]], 1 / 60)


def test_a_client_gets_one_contradiction_of_a_fact_that_two_others_have():
    split = [
        [[make_case(0, "a", "b", "P", subject="Ada")]],
        [[make_case(1, "a", "b", "P", subject="Ada")]],
        [[make_case(i, new, None, "P") for i, new in enumerate("cde", start=2)]],
    ]

    for seed in range(20):
        [cases] = assign_conflicts(split, 0.8, seed=seed)[2]
        received = [case for case in cases if case.conflicts_with in (0, 1)]
        assert len(received) == 1


def test_a_contradiction_is_not_contradicted():
    first = assign_conflicts(make_split(3, 2), 0.5, seed=0)

    second = assign_conflicts(first, 1 / 60, seed=1)

    ids = {case.request.case_id for _, _, case in placed(second)}
    assert not any(str(name).endswith("-conflict-conflict") for name in ids)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_out_of_range_is_refused(share: float):
    with pytest.raises(ConfigurationError, match="from 0 to 1"):
        assign_conflicts(make_split(2, 2), share)


def test_clients_with_other_numbers_of_rounds_are_refused():
    with pytest.raises(ConfigurationError, match=r"found \[1, 2\]"):
        assign_conflicts([[CASES[:5]], [CASES[5:8], []]], 0.1)


def test_pairs_are_found_again_over_clients_and_rounds():
    split = make_split(3, 2, 0.2)
    cases = [case for _, _, case in placed(assign_conflicts(split, 0.2))]

    pairs = conflict_pairs(cases)

    assert len(pairs) == 12
    for first, second in pairs:
        assert first == by_id(CASES)[second.conflicts_with]
        assert normal_form(first.request.target_new) != normal_form(
            second.request.target_new
        )


def test_copies_are_neither_half_of_a_pair():
    [rival] = conflicting_cases(CASES, 1)
    original = by_id(CASES)[rival.conflicts_with]
    copies = [c.model_copy(update={"copied_from": 0}) for c in (original, rival)]

    assert conflict_pairs([original, rival, *copies]) == [ConflictPair(original, rival)]
    with pytest.raises(RequestFormatError, match="which it contradicts"):
        conflict_pairs([rival, *copies])


def test_the_embedded_worlds_cases_can_be_contradicted():
    cases = embedded_cases(100)

    made = conflicting_cases(cases, 100)

    assert [case.conflicts_with for case in made] == list(range(100))


def test_a_contradiction_survives_json():
    [case] = conflicting_cases(CASES, 1)

    assert EvaluationCase.model_validate_json(case.model_dump_json()) == case
