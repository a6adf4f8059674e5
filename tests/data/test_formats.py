"""The format is guessed only where one fits, and short names lead to the hub."""

import json
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest

from flwr_collabedit.data.formats import FORMATS, KNOWN_SOURCES, guess_format
from flwr_collabedit.data.knowedit import read_knowedit
from flwr_collabedit.data.loading import load_cases
from flwr_collabedit.data.mquake import read_mquake
from flwr_collabedit.data.reading import read_data_set
from flwr_collabedit.data.requests import (
    EditRequest,
    EvaluationCase,
    MultiHopQuestion,
    Question,
)
from flwr_collabedit.errors import ConfigurationError, RequestFormatError

Record = dict[str, Any]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_guessed_from_its_own_record(
    tmp_path: Path, records: dict[str, Record], name: str
):
    path = tmp_path / "facts.jsonl"
    path.write_text(json.dumps(records[name] | {"of_no_use": None}))

    data = read_data_set(path)

    assert (data.data_format, data.is_guessed) == (name, True)
    assert data.cases() == load_cases(path, data_format=name)
    assert not read_data_set(path, data_format=name).is_guessed


def test_every_record_fits_one_format_only(records: dict[str, Record]):
    fitting = {
        name: [other for other, known in FORMATS.items() if known.fits(record)]
        for name, record in records.items()
    }

    assert fitting == {name: [name] for name in FORMATS}


def test_other_sub_sets_are_knowedit_too(
    wikibio_record: Record, easyedit_record: Record, wiki_recent_record: Record
):
    zsre = wiki_recent_record | {"rephrase_prompt": "a", "ground_truth": ["b"]}
    with_portability = easyedit_record | {"portability": {"New Question": "a"}}

    assert guess_format(wikibio_record) == "knowedit"
    assert guess_format(zsre) == "knowedit"
    assert guess_format(with_portability) == "easyedit"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"a": 1, "b": None}, r"found 'a'\. Name the format, one of 'plain'"),
        (
            {"subject": "a", "prompt": "b", "target": "c"},
            r"plain record needs 'target_new', too\. target: unknown field\. Known: 't",
        ),
        (
            {"edit": {}, "requested_rewrite": {}},
            "which fit 'counterfact', 'easy'; name the format",
        ),
    ],
    ids=["nothing known", "nearly plain", "two"],
)
def test_what_fits_none_or_several_is_listed(
    tmp_path: Path, record: Record, message: str
):
    path = tmp_path / "facts.json"
    path.write_text(json.dumps([record]))

    with pytest.raises(RequestFormatError, match=message) as caught:
        read_data_set(path)

    assert str(caught.value).startswith(f"{path}: expected ")


def test_a_record_that_cannot_be_read_hides_no_other(
    tmp_path: Path, plain_record: Record
):
    bad = plain_record | {"prompt": "Nobody is"}
    rows = [json.dumps(r) for r in (plain_record, bad)] + ["{broken", "5"]
    path = tmp_path / "facts.jsonl"
    path.write_text("\n".join([*rows, json.dumps(plain_record | {"case_id": 0})]))

    found = read_data_set(path).records

    assert [bool(record.error) for record in found] == [False, True, True, True, True]
    assert [record.line for record in found] == [1, 2, 3, 4, 5]
    assert found[2].error.startswith("expected JSON")
    assert found[4].error.startswith("case_id 0 is the one of record 0 already")
    assert found[4].place == "record 4 (line 5, case_id 0)"


def test_a_guess_is_logged(tmp_path: Path, plain_record: Record, caplog: Any):
    path = tmp_path / "facts.json"
    path.write_text(json.dumps([plain_record]))

    with caplog.at_level("INFO"):
        load_cases(path, data_format="plain")
        assert caplog.text == ""
        load_cases(path, data_format="")

    assert f"{path}: read as 'plain'" in caplog.text


def test_mquake_edits_become_cases_and_its_questions_the_firsts(mquake_record: Record):
    first, second = read_mquake(mquake_record)

    assert first == EvaluationCase(
        request=EditRequest(
            case_id="12-0",
            prompt="{} is a citizen of",
            subject="Ada Merrow",
            target_new="Belmar",
            relation_id="P27",
        ),
        target_true="Nerith",
        paraphrase_prompts=("What is the country of citizenship of Ada Merrow?",),
        multi_hop=(
            MultiHopQuestion(
                phrasings=("Where is the government of Ada Merrow?", "B?", "C?"),
                answers=("Lyria", "Lyria City"),
            ),
        ),
    )
    assert second.request.case_id == "12-1"
    assert second.request.target_new == "Lyria"
    assert second.multi_hop == ()


def test_mquake_on_the_hub_has_flat_targets(mquake_record: Record):
    plain = read_mquake(mquake_record)
    for rewrite in mquake_record["requested_rewrite"]:
        for name in ("target_new", "target_true"):
            rewrite[f"{name}_str"] = rewrite.pop(name)["str"]

    assert read_mquake(mquake_record) == plain

    del mquake_record["requested_rewrite"][1]
    (alone,) = read_mquake(mquake_record)
    assert alone.request.case_id == 12
    mquake_record["requested_rewrite"][0]["target_new_str"] = None
    with pytest.raises(RequestFormatError, match=r"rewrite\[0\]\.target_new\.str: exp"):
        read_mquake(mquake_record)


def test_a_wiki_recent_record_becomes_a_case(wiki_recent_record: Record):
    assert read_knowedit(wiki_recent_record, index=4) == EvaluationCase(
        request=EditRequest(
            case_id=4,
            prompt="The place of death of {} is",
            subject="Leo Varn",
            target_new="Lyria",
        ),
        same_subject=(
            Question(prompt="The father of Leo Varn is", answer="Albert Varn"),
        ),
        neighborhood=(Question(prompt="The capital of Belmar is", answer="Vandor"),),
        multi_hop=(
            MultiHopQuestion(
                phrasings=("The country in which Leo Varn died is",),
                answers=("Belmar", "Kingdom of Belmar"),
            ),
        ),
    )


@pytest.mark.parametrize(
    "before", ["Vandor", ["Vandor", "b"], [["Vandor", "b"], ["c"]]]
)
def test_the_first_answer_before_is_the_true_target(
    wiki_recent_record: Record, before: object
):
    record = wiki_recent_record | {"ground_truth": before, "rephrase_prompt": "Q?"}

    case = read_knowedit(record, index=0)

    assert case.target_true == "Vandor"
    assert case.paraphrase_prompts == ("Q?",)


def test_a_wikibio_record_becomes_a_case(wikibio_record: Record):
    case = read_knowedit(wikibio_record, index=0)

    assert case.rewrite_prompt == wikibio_record["text"]
    assert case.request.prompt.startswith("This is a Wikipedia passage about {}. Leo")
    assert case.request.target_new == "He studied in Lyria."
    assert len(case.same_subject) == 1


def test_a_bad_knowedit_question_is_named(wiki_recent_record: Record):
    wiki_recent_record["locality"]["Relation_Specificity"][1]["ground_truth"] = 5

    with pytest.raises(
        RequestFormatError, match=r"locality\.Relation_Spec.*\[1\]\.ground_truth: .* 5"
    ):
        read_knowedit(wiki_recent_record, index=0)


def test_a_short_name_leads_to_its_hub_data_set(
    monkeypatch: pytest.MonkeyPatch, records: dict[str, Record]
):
    asked = []

    def load_dataset(name: str, *, split: str | None) -> object:
        asked.append((name, split))
        own = records["counterfact" if "counter" in name else "mquake"]
        return datasets.Dataset.from_list([own])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)

    (case,) = load_cases("counterfact", data_format="")
    data = read_data_set("mquake", split="T")

    assert asked == [
        ("azhx/counterfact", "train"),
        ("henryzhongsc/MQuAKE-Remastered", "T"),
    ]
    assert case.request.target_new == "Lyria"
    assert len(data.cases()) == 2
    assert not data.is_guessed


def test_a_file_of_a_hub_data_set_is_read_like_any_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wiki_recent_record: Record
):
    copy = tmp_path / "recent_test.json"
    copy.write_text(json.dumps([wiki_recent_record]))
    asked = []

    def download(name: str, file: str, *, repo_type: str) -> str:
        asked.append((name, file, repo_type))
        return str(copy)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)

    (case,) = load_cases("knowedit-wiki-recent", data_format="")

    file = "benchmark/wiki_recent/recent_test.json"
    assert asked == [("zjunlp/KnowEdit", file, "dataset")]
    assert case.request.subject == "Leo Varn"


def test_sources_that_cannot_be_had_are_refused(tmp_path: Path):
    # Offline, see the conftest: the real libraries answer that nothing is cached.
    text = tmp_path / "facts.txt"
    text.write_text("a")

    for source in ("counterfact", "knowedit-zsre"):
        with pytest.raises(ConfigurationError, match="id of a data set on the hub"):
            load_cases(source, data_format="")
    with pytest.raises(ConfigurationError, match=r"expected a file named \.json"):
        load_cases(text)


def test_short_names_have_known_formats():
    assert {at.data_format for at in KNOWN_SOURCES.values()} <= set(FORMATS)
