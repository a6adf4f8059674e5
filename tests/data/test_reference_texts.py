"""Reference texts in our layout and in the published one, and what is refused."""

import json

import pytest

from flwr_collabedit.data.fact_world import embedded_cases
from flwr_collabedit.data.reference_texts import (
    ReferenceTexts,
    embedded_reference_texts,
)
from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.errors import RequestFormatError


def case(case_id, target, relation=""):
    request = EditRequest(
        case_id=case_id,
        prompt="{} is in",
        subject="Leeds",
        target_new=target,
        relation_id=relation,
    )
    return EvaluationCase(request=request)


@pytest.fixture
def written(tmp_path):
    def write(*records, name="texts.jsonl"):
        path = tmp_path / name
        path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
        return path

    return write


def test_texts_are_found_by_case_then_by_relation_and_target(written):
    found = ReferenceTexts.from_file(
        written(
            {"target": "Rome", "relation_id": "P36", "texts": ["capital one"]},
            {"target": "Rome", "relation_id": "P36", "texts": ["capital two", " "]},
            {"target": "Rome", "texts": ["no relation"]},
            {"case_id": 3, "texts": ["its own"]},
            {"case_id": 3, "texts": ["and more"]},
        )
    )

    assert found.of(case(1, "Rome", "P36")) == ("capital one", "capital two")
    assert found.of(case(2, "Rome")) == ("no relation",)
    own = ("its own", "and more")
    assert found.of(case(3, "Rome", "P36")) == found.of(case("3", "Oslo")) == own
    assert found.of(case(4, "Oslo", "P36")) == ()
    assert sorted(found.texts()) == [
        *("and more", "capital one", "capital two", "its own", "no relation")
    ]


def test_published_snippets_are_found_by_the_name_of_their_target(
    written, counterfact_record
):
    rewrite = counterfact_record["requested_rewrite"]
    relation, new = rewrite["relation_id"], rewrite["target_new"]
    snippets = {
        "relation_id": relation,
        "target_id": new["id"],
        "samples": [{"name": "Oslo", "text": "Oslo is a city."}],
    }
    unasked = {**snippets, "target_id": "Q0"}
    data = written(counterfact_record, name="counterfact.jsonl")

    found = ReferenceTexts.from_file(written(snippets, unasked), counterfact=data)

    assert found.of(case(1, new["str"], relation)) == ("Oslo is a city.",)
    assert list(found.texts()) == ["Oslo is a city."]


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"target": "Rome"}, "a list 'texts'"),
        (["Rome"], "expected an object"),
        ({"target": "Rome", "texts": "Rome is old"}, "a list 'texts'"),
        ({"target": "Rome", "texts": [1]}, "expected texts"),
        ({"target": "Rome", "samples": [{"name": "x"}]}, "expected texts"),
        ({"texts": ["Rome is old"]}, "'case_id' or 'target'"),
        ({"target_id": "Q1", "texts": ["Rome is old"]}, "Give the file of CounterFact"),
        ({"target": "Rome", "texts": [""]}, "at least one reference text"),
    ],
)
def test_wrong_records_are_refused(written, record, told):
    with pytest.raises(RequestFormatError, match=told):
        ReferenceTexts.from_file(written(record))


def test_the_embedded_world_says_what_its_answers_mean():
    references = embedded_reference_texts()
    by_relation = {c.request.relation_id: c for c in embedded_cases(200)}

    capital = by_relation["capital"]
    texts = references.of(capital)

    assert any(capital.request.target_new in text for text in texts)
    assert not any(capital.request.subject in text for text in texts)
    assert all(references.of(case) for case in embedded_cases(200))
    assert len(set(texts)) == len(texts)
