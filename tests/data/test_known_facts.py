"""Facts for tracing, from ROME's layout and from cases."""

import json
from pathlib import Path

import pytest

from flwr_collabedit.data.fact_world import default_world
from flwr_collabedit.data.known_facts import (
    KnownFact,
    embedded_facts,
    load_known_facts,
)
from flwr_collabedit.errors import RequestFormatError

ROME = Path(__file__).parents[2].parent / "shared" / "data" / "known_1000.json"
RECORD = {
    "known_id": 7,
    "subject": "Marshall Islands",
    "attribute": "English",
    "template": "In {}, the language spoken is",
    "prediction": " a mixture of English",
    "prompt": "In Marshall Islands, the language spoken is a mixture of",
}
CASE = {
    "case_id": 3,
    "requested_rewrite": {
        "prompt": "{} speaks",
        "relation_id": "P103",
        "subject": "Ann",
        "target_new": {"str": "French"},
        "target_true": {"str": "English"},
    },
    "paraphrase_prompts": [],
    "neighborhood_prompts": [],
}


def write(folder: Path, *records: object) -> Path:
    path = folder / "facts.json"
    path.write_text(json.dumps(records))
    return path


@pytest.mark.parametrize("data_format", ["", "known"])
def test_the_prompt_goes_before_the_template(tmp_path, data_format):
    facts = load_known_facts(write(tmp_path, RECORD), data_format=data_format)

    assert facts == [
        KnownFact(
            fact_id=7,
            prompt="In {}, the language spoken is a mixture of",
            subject="Marshall Islands",
            answer="English",
        )
    ]


def test_a_record_may_have_a_template_only(tmp_path):
    short = {k: RECORD[k] for k in ("subject", "attribute", "template")}
    (fact,) = load_known_facts(write(tmp_path, short))

    assert (fact.fact_id, fact.prompt) == (0, "In {}, the language spoken is")


def test_the_true_answer_of_a_case_is_what_is_known(tmp_path):
    (fact,) = load_known_facts(write(tmp_path, CASE))

    assert (fact.fact_id, fact.prompt, fact.answer) == (3, "{} speaks", "English")


def test_a_case_without_a_true_answer_is_refused(tmp_path):
    plain = {"subject": "Ann", "prompt": "{} speaks", "target_new": "French"}

    with pytest.raises(RequestFormatError, match="no true answer"):
        load_known_facts(write(tmp_path, plain))


def test_an_error_names_file_record_and_field(tmp_path):
    wrong = {**RECORD, "prompt": "Nobody speaks"}

    with pytest.raises(
        RequestFormatError, match=r"facts\.json, record 1: prompt: .*'Marshall Islands'"
    ):
        load_known_facts(write(tmp_path, RECORD, wrong))


def test_limit_takes_the_first_records(tmp_path):
    assert len(load_known_facts(write(tmp_path, RECORD, RECORD), limit=1)) == 1


def test_the_published_file_is_read_whole():
    if not ROME.is_file():
        pytest.skip(f"{ROME} is not on this machine")
    facts = load_known_facts(ROME)

    assert len(facts) == len({fact.fact_id for fact in facts}) == 1209
    assert all(fact.prompt.count("{}") == 1 for fact in facts)


def test_embedded_facts_are_true_in_its_world():
    known = {(fact.subject, fact.answer) for fact in default_world().facts}

    facts = embedded_facts(20)

    assert {(fact.subject, fact.answer) for fact in facts} <= known
    assert len({fact.subject for fact in facts}) == 20
