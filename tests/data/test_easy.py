"""Easy records become edits; those with a conflict become the two that compete."""

import json
from pathlib import Path
from typing import Any

import pytest

from flwr_collabedit.data.augmentation import augmented
from flwr_collabedit.data.easy import read_conflict_pair, read_easy
from flwr_collabedit.data.loading import load_cases, load_conflict_pairs
from flwr_collabedit.data.normal_form import fact_of, normal_form
from flwr_collabedit.data.requests import EditRequest, EvaluationCase, Question
from flwr_collabedit.errors import ConfigurationError, RequestFormatError

Record = dict[str, Any]


def easy_case(case_id: int | str, target: str, before: str | None) -> EvaluationCase:
    return EvaluationCase(
        request=EditRequest(
            case_id=case_id,
            prompt="{} has use(s), such as",
            subject="glim",
            target_new=target,
            relation_id="P366",
        ),
        target_true=before,
        paraphrase_prompts=("What use does glim have?",),
    )


def test_an_easy_record_becomes_the_edit_to_its_new_object(easy_record: Record):
    assert read_easy(easy_record, index=4) == easy_case(4, "weaving", "rope making")


def test_a_new_object_may_be_a_plain_text(conflict_record: Record):
    assert read_easy(conflict_record, index=4) == easy_case(4, "weeving", "rope making")


def test_a_record_with_a_conflict_becomes_two_edits_of_one_fact(
    conflict_record: Record,
):
    first, second = read_conflict_pair(conflict_record, index=4)

    related = tuple(
        Question(prompt="glim has use(s), such as", answer=answer)
        for answer in ("sail mending", "net repair")
    )
    kept = easy_case("4-object", "rope making", "weeving")
    rival = easy_case("4-conflict", "weaving", "weeving")
    assert first == kept.model_copy(update={"related": related})
    assert second == rival.model_copy(update={"conflicts_with": "4-object"})
    assert fact_of(first.request) == fact_of(second.request)


def test_a_rival_that_is_the_answer_before_has_no_contest(conflict_record: Record):
    conflict_record["edit"]["new_object"] = "Weaving."

    first, second = read_conflict_pair(conflict_record, index=0)

    assert first.target_true == "Weaving."
    assert second.target_true is None


def test_an_augmented_winner_has_its_query_and_the_other_true_objects(
    conflict_record: Record,
):
    first, _ = read_conflict_pair(conflict_record, index=4)

    assert [(r.prompt, r.target_new) for r in augmented(first)] == [
        ("{} has use(s), such as", "rope making"),
        ("What use does {} have?", "rope making"),
        ("{} has use(s), such as", "sail mending"),
        ("{} has use(s), such as", "net repair"),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"new_object": None}, r"edit\.new_object\.label: .*found only 'relation'"),
        ({"new_object": " "}, r"edit\.new_object: expected a text, found ' '"),
        ({"new_object": {"id": "Q1"}}, r"edit\.new_object\.label: .*only 'id'"),
        ({"subject": {"label": 5}}, r"edit\.subject\.label: expected a text, found 5"),
        ({"conflict_object": {}}, r"edit\.conflict_object\.label: expected a value"),
        ({"conflict_object": {"label": "Rope making"}}, "found 'Rope making' for both"),
    ],
)
def test_a_bad_field_is_named_as_in_the_file(
    conflict_record: Record, change: Record, message: str
):
    conflict_record["edit"] |= change

    with pytest.raises(RequestFormatError, match=message):
        read_conflict_pair(conflict_record, index=0)


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (None, "true_objects: expected a list, found None"),
        ([{"label": "a"}, {"id": 3}], r"true_objects\[1\]\.label: .*found only 'id'"),
        (["a"], r"true_objects\[0\]\.label: .*found only 'a'"),
    ],
)
def test_bad_true_objects_are_named(
    conflict_record: Record, objects: object, message: str
):
    with pytest.raises(RequestFormatError, match=message):
        read_conflict_pair(conflict_record | {"true_objects": objects}, index=0)


def test_a_file_is_read_as_cases_and_as_pairs(tmp_path: Path, conflict_record: Record):
    path = tmp_path / "conflicts.json"
    path.write_text(json.dumps([conflict_record] * 3))

    cases = load_cases(path, data_format="easy", limit=2)
    pairs = load_conflict_pairs(path, limit=2)

    assert cases == [read_easy(conflict_record, index=i) for i in (0, 1)]
    assert pairs == [read_conflict_pair(conflict_record, index=i) for i in (0, 1)]


def test_a_bad_record_is_named_by_file_and_place(
    tmp_path: Path, conflict_record: Record, easy_record: Record
):
    path = tmp_path / "conflicts.json"
    path.write_text(json.dumps([conflict_record, easy_record]))

    with pytest.raises(
        RequestFormatError, match=r"conflicts\.json, record 1: edit\.conflict_object"
    ):
        load_conflict_pairs(path)
    with pytest.raises(ConfigurationError, match="limit of at least 1, found 0"):
        load_conflict_pairs(path, limit=0)


def test_the_published_conflicts_are_read(published_data: Path):
    path = published_data / "conflict" / "easy_conflict_1000_p1.json"

    pairs = load_conflict_pairs(path)

    assert len(pairs) == 1000
    assert pairs[0].first.rewrite_prompt == "fpart has use(s), such as"
    assert pairs[0].first.request.target_new == "data migration"
    assert pairs[0].second.request.target_new == "franking"
    assert sum(second.target_true is None for _, second in pairs) == 74
    assert all(first.related for first, _ in pairs)
    assert len(load_cases(path, data_format="easy")) == 1000


def test_in_the_published_conflicts_the_rival_is_easys_new_object(published_data: Path):
    easy = load_cases(published_data / "conflict" / "easy.json", data_format="easy")
    pairs = load_conflict_pairs(
        published_data / "conflict" / "easy_conflict_1000_p1.json"
    )
    asked = {
        (*fact_of(case.request), normal_form(case.target_true)): case for case in easy
    }

    for first, second in pairs:
        fact = (*fact_of(first.request), normal_form(first.request.target_new))
        assert asked[fact].request.target_new == second.request.target_new
