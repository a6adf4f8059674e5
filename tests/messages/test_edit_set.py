"""Sets of edits against plain sets of pairs; what declarations may say."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_collabedit.client.own_edits import OwnEdits
from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.errors import PayloadError
from flwr_collabedit.messages.declaration import Declaration
from flwr_collabedit.messages.edit_set import EditSet

ROUNDS, PLACES = range(1, 5), range(6)
places = st.none() | st.lists(st.sampled_from(PLACES), max_size=4)
edit_sets = st.dictionaries(st.sampled_from(ROUNDS), places).map(EditSet.of)
EVERY = [(r, p) for r in ROUNDS for p in PLACES]


def pairs(found: EditSet) -> set[tuple[int, int]]:
    return {edit for edit in EVERY if edit in found}


@given(one=edit_sets, other=edit_sets)
def test_or_is_the_union(one, other):
    both = one | other

    assert pairs(both) == pairs(one) | pairs(other)
    assert both == other | one
    whole = {r for found in (one, other) for r, p in found.rounds.items() if p is None}
    assert {r for r, p in both.rounds.items() if p is None} == whole
    assert one | EditSet() == one == one | one


@given(found=edit_sets)
def test_a_set_survives_its_text(found):
    assert EditSet.from_json(found.to_json()) == found
    assert bool(found) == bool(found.to_json()) == bool(pairs(found))


@given(one=edit_sets, other=edit_sets)
def test_equal_sets_have_equal_texts(one, other):
    assert (one == other) == (one.to_json() == other.to_json())
    back = [(r, p and sorted(p)) for r, p in reversed(one.rounds.items())]
    assert EditSet.of(dict(back)).to_json() == one.to_json()


@given(found=edit_sets)
def test_a_set_is_made_of_its_rounds(found):
    parts = [found.of_round(number) for number in ROUNDS]

    assert set().union(*map(pairs, parts)) == pairs(found)
    for number, part in zip(ROUNDS, parts, strict=True):
        assert {r for r, _ in pairs(part)} <= {number}
    whole = sum(p is None for p in found.rounds.values())
    single = len({e for e in pairs(found) if found.rounds[e[0]] is not None})
    assert len(found) == whole + single


@pytest.mark.parametrize(
    "text",
    [
        *("[1]", "1", '"1"', "{", '{"a": [0]}', '{"1": 0}', '{"1": "01"}'),
        *('{"1": [0.5]}', '{"1": ["0"]}', '{"1": [true]}', '{"1": [-1]}'),
        *('{"1": {"0": 1}}', '{"1": [null]}', '{"1": [[0]]}'),
    ],
)
def test_other_text_is_refused(text):
    with pytest.raises(PayloadError, match="Expected a set of edits such as"):
        EditSet.from_json(text)


def case(number):
    request = EditRequest(
        case_id=number, prompt="{} is", subject=f"S{number}", target_new="x"
    )
    return EvaluationCase(request=request, paraphrase_prompts=(f"S{number}, it is",))


SIZES = (3, 0, 6)
OWN = OwnEdits([[case(10 * r + p) for p in range(n)] for r, n in enumerate(SIZES, 1)])
HELD = {(r, p) for r, n in enumerate(SIZES, start=1) for p in range(n)}


def ids(found):
    return [10 * r + p for r, p in sorted(found)]


@given(chosen=edit_sets, inactive=edit_sets, number=st.integers(0, 5))
def test_own_edits_are_those_of_the_set_that_count(chosen, inactive, number):
    count = HELD - pairs(inactive)

    def of(found):
        return [(getattr(one, "request", one)).case_id for one in found]

    in_round = [edit for edit in count if edit[0] == number]
    assert of(OWN.of_round(number, inactive)) == ids(in_round)
    assert of(OWN.requests(number, inactive)) == ids(in_round)
    assert of(OWN.inside(chosen)) == ids(HELD & pairs(chosen))
    found = OWN.requests_inside(chosen, None, inactive)
    assert of(found) == ids(count & pairs(chosen))
    until = OWN.until(number, inactive)
    last = min(number, len(SIZES)) or len(SIZES)
    assert list(until) == list(range(1, last + 1))
    for server_round, cases in until.items():
        assert of(cases) == ids(e for e in count if e[0] == server_round)


def test_an_enlarged_edit_comes_with_its_paraphrases():
    plain = OWN.requests(1)
    found = OWN.requests(1, EditSet.of({1: [0]}), EditSet.of({1: [0, 2]}))

    assert found[0] == plain[1]
    assert found[1] == plain[2]
    assert [request.prompt for request in found[2:]] == ["{}, it is"]
    assert found == OWN.requests_inside(
        EditSet.of({1: [1, 2]}), EditSet.of({1: [0, 2]})
    )


def said(**fields):
    whole = {"num_edits": 2, "fact_tags": ["a", "b"], "target_tags": ["c", "d"]}
    return {**whole, "key_check": "k", "presence": [0.0, 1.0], **fields}


def test_a_declaration_survives_its_text():
    found = Declaration(**said(take_back='{"1": [0]}'))

    assert Declaration.from_json(found.model_dump_json()) == found
    assert found.withdrawals == EditSet.of({1: [0]})
    assert Declaration.from_json('{"num_edits": 2}').fact_tags == ()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (said(num_edits=3), "fact_tags has 2 entries"),
        (said(num_edits=-1), "num_edits"),
        (said(fact_tags=["a"]), "fact_tags has 1 entries"),
        (said(target_tags=[]), "differ in length"),
        (said(presence=[0.5]), "presence has 1 entries"),
        (said(presence=["much", 1]), "presence"),
        (said(subject="France"), "subject"),
        (said(take_back="[1]"), "Expected a set of edits"),
        ({}, "num_edits"),
        (None, "Declaration"),
    ],
)
def test_another_declaration_is_refused(content, reason):
    text = None if content is None else json.dumps(content)
    with pytest.raises(PayloadError, match=reason):
        Declaration.from_json(text)
