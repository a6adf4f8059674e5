"""Every case is at exactly one client, and in exactly one of its rounds."""

from collections.abc import Sequence
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_collabedit.data.partition import (
    METHODS,
    split_over_clients,
    split_over_rounds,
)
from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.errors import ConfigurationError

RELATIONS = st.lists(st.sampled_from(["P1", "P2", "P3", "P4"]), min_size=1, max_size=30)


def make_cases(relations: Sequence[str]) -> list[EvaluationCase]:
    return [
        EvaluationCase(
            request=EditRequest(
                case_id=index,
                prompt="{} is",
                subject=f"S{index}",
                target_new="x",
                relation_id=relation,
            )
        )
        for index, relation in enumerate(relations)
    ]


def case_ids(parts: Sequence[Sequence[EvaluationCase]]) -> list[list[int | str]]:
    return [[case.request.case_id for case in part] for part in parts]


@pytest.mark.parametrize("method", METHODS)
@given(relations=RELATIONS, seed=st.integers(0, 2**32 - 1), data=st.data())
@settings(max_examples=25, deadline=None)
def test_every_case_is_at_exactly_one_client(
    method: str, relations: list[str], seed: int, data: st.DataObject
):
    cases = make_cases(relations)
    num_clients = data.draw(st.integers(1, len(cases)))

    split = split_over_clients(cases, num_clients, method=method, seed=seed)

    assert len(split) == num_clients
    assert sorted(chain(*case_ids(split))) == list(range(len(cases)))
    assert all(case == cases[case.request.case_id] for own in split for case in own)
    if method != "dirichlet":
        assert all(split)


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_decides_the_split(method: str):
    cases = make_cases(["P1", "P2", "P3", "P4"] * 8)

    first, again, other = (
        case_ids(split_over_clients(cases, 4, method=method, seed=seed))
        for seed in (1, 1, 2)
    )

    assert first == again
    assert first != other


@given(num_cases=st.integers(1, 40), data=st.data())
@settings(max_examples=25, deadline=None)
def test_iid_sizes_differ_by_at_most_one(num_cases: int, data: st.DataObject):
    num_clients = data.draw(st.integers(1, num_cases))

    split = split_over_clients(make_cases(["P1"] * num_cases), num_clients)

    sizes = [len(own) for own in split]
    assert max(sizes) - min(sizes) <= 1


def test_iid_mixes_the_order_of_the_file():
    split = split_over_clients(make_cases(["P1"] * 20 + ["P2"] * 20), 2)

    assert all(
        {case.request.relation_id for case in own} == {"P1", "P2"} for own in split
    )


@given(relations=RELATIONS, data=st.data())
@settings(max_examples=25, deadline=None)
def test_by_relation_keeps_relations_together(
    relations: list[str], data: st.DataObject
):
    cases = make_cases(relations)
    num_clients = data.draw(st.integers(1, len(cases)))

    split = split_over_clients(cases, num_clients, method="by-relation")

    owned = [{case.request.relation_id for case in own} for own in split]
    if num_clients <= len(set(relations)):
        assert sum(map(len, owned)) == len(set(relations))
    else:
        assert {len(own) for own in owned} == {1}


@pytest.mark.parametrize("seed", range(4))
def test_by_relation_balances_whole_relations(seed: int):
    # 6 + 5 + 4 + 3 cases over 2 clients: 6, then 5, then 4 to the client with 5,
    # then 3 to the client with 6: 9 and 9.
    cases = make_cases(["P3"] * 4 + ["P2"] * 5 + ["P1"] * 6 + ["P4"] * 3)

    split = split_over_clients(cases, 2, method="by-relation", seed=seed)

    owned = [{case.request.relation_id for case in own} for own in split]
    assert owned == [{"P1", "P4"}, {"P2", "P3"}]


def test_by_subject_cluster_puts_similar_prompts_together():
    prompts = ["which river flows to the {}", "who composed the opera {}"]
    cases = [
        EvaluationCase(
            request=EditRequest(
                case_id=index, prompt=prompt, subject=f"S{index}", target_new="x"
            )
        )
        for index, prompt in enumerate(prompts * 6)
    ]

    split = split_over_clients(cases, 2, method="by-subject-cluster")

    found = sorted(map(sorted, case_ids(split)))
    assert found == [[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]]


def test_the_seed_decides_the_clusters(monkeypatch: pytest.MonkeyPatch):
    # As many clusters as the seed says, each of which a client gets whole.
    monkeypatch.setattr(
        "flwr_collabedit.data.clusters.cluster_texts",
        lambda texts, num_clusters, *, seed: [i % seed for i in range(len(texts))],
    )

    split = split_over_clients(
        make_cases([""] * 6), 3, method="by-subject-cluster", seed=3
    )

    assert sorted(map(sorted, case_ids(split))) == [[0, 3], [1, 4], [2, 5]]


def test_by_subject_cluster_takes_given_clusters():
    cases = make_cases([""] * 6)

    split = split_over_clients(
        cases, 2, method="by-subject-cluster", clusters=[0, 1, 1, 0, 1, 1]
    )

    assert list(map(sorted, case_ids(split))) == [[1, 2, 4, 5], [0, 3]]


def test_more_clients_than_clusters_share_the_largest():
    cases = make_cases([""] * 6)

    split = split_over_clients(
        cases, 3, method="by-subject-cluster", clusters=[0, 1, 1, 0, 1, 1]
    )

    assert sorted(map(sorted, case_ids(split))) == [[0, 3], [1, 2], [4, 5]]


def test_a_small_alpha_gives_a_client_few_relations():
    cases = make_cases([f"P{i % 10}" for i in range(400)])

    def relations_per_client(alpha: float) -> float:
        split = split_over_clients(cases, 5, method="dirichlet", alpha=alpha)
        return sum(len({case.request.relation_id for case in own}) for own in split)

    assert relations_per_client(0.05) < 25 < relations_per_client(100.0) == 50


def test_the_seed_decides_how_many_cases_a_client_gets():
    cases = make_cases(["P1", "P2", "P3", "P4"] * 8)

    sizes = {
        tuple(map(len, split_over_clients(cases, 4, method="dirichlet", seed=seed)))
        for seed in range(3)
    }

    assert len(sizes) == 3


def test_dirichlet_may_leave_a_client_without_cases():
    split = split_over_clients(
        make_cases(["P1"] * 20), 10, method="dirichlet", alpha=0.01
    )

    assert min(len(own) for own in split) == 0
    assert sum(len(own) for own in split) == 20


@pytest.mark.parametrize(
    ("num_clients", "options", "message"),
    [
        (4, {}, "found 4 clients and 3 cases"),
        (0, {}, "at least 1 client, found 0"),
        (2, {"method": "relation"}, "unknown split 'relation'. Known: 'by-relation'"),
        (2, {"method": "dirichlet", "alpha": 0.0}, "alpha above 0, found 0.0"),
        (2, {"method": "dirichlet", "alpha": float("nan")}, "alpha above 0, found nan"),
        (
            2,
            {"method": "by-subject-cluster", "clusters": [0, 1]},
            "the cluster of each of 3 cases, found 2",
        ),
    ],
    ids=[
        *("more-clients-than-cases", "no-client", "method", "alpha", "alpha-nan"),
        "clusters",
    ],
)
def test_impossible_splits_are_refused(
    num_clients: int, options: dict[str, object], message: str
):
    with pytest.raises(ConfigurationError, match=message):
        split_over_clients(make_cases(["P1", "P2", "P3"]), num_clients, **options)


@pytest.mark.parametrize("method", ["by-relation", "dirichlet"])
def test_methods_by_relation_refuse_cases_without_one(method: str):
    with pytest.raises(ConfigurationError, match=r"1 of 2 cases without \(first: 1\)"):
        split_over_clients(make_cases(["P1", ""]), 1, method=method)


@given(num_cases=st.integers(0, 30), num_rounds=st.integers(1, 10))
@settings(max_examples=40, deadline=None)
def test_rounds_are_contiguous_and_even(num_cases: int, num_rounds: int):
    cases = make_cases(["P1"] * num_cases)

    rounds = split_over_rounds(cases, num_rounds)

    sizes = [len(own) for own in rounds]
    assert list(chain(*rounds)) == cases
    assert len(rounds) == num_rounds
    assert max(sizes) - min(sizes) <= 1


def test_the_first_rounds_take_what_is_left_over():
    assert case_ids(split_over_rounds(make_cases(["P1"] * 5), 3)) == [
        [0, 1],
        [2, 3],
        [4],
    ]


def test_no_round_at_all_is_refused():
    with pytest.raises(ConfigurationError, match="at least 1 round, found 0"):
        split_over_rounds([], 0)
