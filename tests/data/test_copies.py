"""A client gets its share of other clients' cases, marked, and none that it holds."""

from collections.abc import Sequence
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_collabedit.data.copies import share_copies
from flwr_collabedit.data.partition import (
    METHODS,
    split_over_clients,
    split_over_rounds,
)
from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.errors import ConfigurationError

Split = list[list[EvaluationCase]]


def make_case(number: int, subject: str = "") -> EvaluationCase:
    request = EditRequest(
        case_id=number,
        prompt="{} is",
        subject=subject or f"subject {number}",
        target_new="x",
        relation_id=f"P{number % 4}",
    )
    return EvaluationCase(request=request, target_true="y")


def make_split(sizes: Sequence[int]) -> Split:
    cases = iter(map(make_case, range(sum(sizes))))
    return [[next(cases) for _ in range(size)] for size in sizes]


def copies_of(cases: Sequence[EvaluationCase]) -> list[EvaluationCase]:
    return [case for case in cases if case.copied_from is not None]


def own_of(cases: Sequence[EvaluationCase]) -> list[EvaluationCase]:
    return [case for case in cases if case.copied_from is None]


# Of near sizes, so that the others always have as many as a client wants.
@given(
    sizes=st.lists(st.integers(10, 20), min_size=3, max_size=6),
    fraction=st.floats(0, 0.99),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_a_client_gets_its_share_of_what_others_own(
    sizes: list[int], fraction: float, seed: int
):
    split = make_split(sizes)

    shared = share_copies(split, fraction, seed=seed)

    for client, (own, held) in enumerate(zip(split, shared, strict=True)):
        copies = copies_of(held)
        ids = [case.request.case_id for case in held]
        assert own_of(held) == own
        assert len(copies) == round(fraction * len(own))
        assert len(set(ids)) == len(ids)
        for copy in copies:
            assert copy.copied_from not in (None, client)
            original = copy.model_copy(update={"copied_from": None})
            assert original in split[copy.copied_from]


@pytest.mark.parametrize("method", METHODS)
def test_copies_come_on_top_of_any_partition(method: str):
    split = split_over_clients(
        [make_case(number) for number in range(40)], 4, method=method, alpha=5.0
    )

    shared = share_copies(split, 0.1)

    assert [len(copies_of(held)) for held in shared] == [
        round(len(own) / 10) for own in split
    ]
    assert list(map(own_of, shared)) == split


def test_without_a_share_the_split_stays_as_it_is():
    split = make_split([3, 0, 5])

    assert share_copies(split, 0.0) == split


def test_the_seed_decides_the_copies():
    split = make_split([20, 20, 20])

    first, again, other = (share_copies(split, 0.2, seed=seed) for seed in (1, 1, 2))

    assert first == again
    assert [{case.request.case_id for case in copies_of(held)} for held in first] != [
        {case.request.case_id for case in copies_of(held)} for held in other
    ]


def test_copies_are_drawn_from_all_other_clients():
    shared = share_copies(make_split([200, 50, 50, 50]), 0.5)

    assert {case.copied_from for case in copies_of(shared[0])} == {1, 2, 3}
    # 100 of 150: about a third from each.
    from_one = sum(case.copied_from == 1 for case in copies_of(shared[0]))
    assert 20 < from_one < 46


def test_copies_land_in_every_round():
    shared = share_copies(make_split([100] * 3), 0.5)

    for held in shared:
        counts = [len(copies_of(cases)) for cases in split_over_rounds(held, 5)]
        # 50 copies over 5 rounds of 30 cases.
        assert sum(counts) == 50
        assert min(counts) >= 3


def test_a_fact_that_the_client_has_under_another_id_is_not_copied():
    split = [
        [make_case(0, "Rome"), make_case(1, "Oslo")],
        [make_case(2, "Rome"), make_case(3, "Oslo"), make_case(4, "Lima")],
        [make_case(5), make_case(6)],
    ]

    for seed in range(20):
        for held in share_copies(split, 0.5, seed=seed):
            subjects = [case.request.subject for case in held]
            assert len(set(subjects)) == len(subjects)


def test_a_fact_that_two_others_own_is_copied_once():
    split = [
        [make_case(0), make_case(1)],
        [make_case(2, "Rome")],
        [make_case(3, "Rome")],
    ]

    with pytest.raises(ConfigurationError, match=r"expected 2 .* client 0.* found 1"):
        share_copies(split, 0.99)


def test_a_share_that_the_others_cannot_fill_is_refused():
    with pytest.raises(ConfigurationError, match=r"expected 5 .* client 0.* found 2"):
        share_copies(make_split([10, 2]), 0.5)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_share_out_of_range_is_refused(fraction: float):
    with pytest.raises(ConfigurationError, match="from 0 to below 1"):
        share_copies(make_split([2, 2]), fraction)


def test_a_copy_has_the_originals_request_and_survives_json():
    split = make_split([4, 4])
    originals = {case.request.case_id: case for case in chain(*split)}

    copy = copies_of(share_copies(split, 0.25)[0])[0]

    assert copy.request == originals[copy.request.case_id].request
    assert EvaluationCase.model_validate_json(copy.model_dump_json()) == copy
