"""A data set is loaded whole, or refused with the record that is wrong."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from flwr_collabedit.data.loading import load_cases
from flwr_collabedit.errors import ConfigurationError, RequestFormatError

Record = dict[str, Any]


def write_json(path: Path, records: object) -> Path:
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def write_lines(path: Path, records: list[Record]) -> Path:
    lines = [json.dumps(record) for record in records]
    path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    return path


def test_json_and_jsonl_files_give_the_same_cases(
    tmp_path: Path, counterfact_record: Record
):
    records = [{**counterfact_record, "case_id": name} for name in (4, "x", 9)]

    as_list = load_cases(write_json(tmp_path / "a.json", records))
    as_lines = load_cases(str(write_lines(tmp_path / "a.jsonl", records)))

    assert [case.request.case_id for case in as_list] == [4, "x", 9]
    assert as_lines == as_list


@pytest.mark.parametrize("data_format", ["easyedit", "zsre"])
def test_the_other_layouts_are_chosen_by_name(
    tmp_path: Path, easyedit_record: Record, zsre_record: Record, data_format: str
):
    record = {"easyedit": easyedit_record, "zsre": zsre_record}[data_format]
    path = write_json(tmp_path / "cases.json", [record])

    (case,) = load_cases(path, data_format=data_format, zsre_target="alt")

    assert case.request.subject == "Ostrava Minor"
    assert case.request.target_new == "Lyria"


def test_dates_and_mixed_types_are_read_as_they_are(
    tmp_path: Path, easyedit_record: Record
):
    texts = {**easyedit_record, "case_id": 0, "target_new": "1931-05-02"}
    lists = {**texts, "case_id": 1, "rephrase_prompt": ["A", "B"]}

    first, second = load_cases(
        write_json(tmp_path / "mixed.json", [texts, lists]), data_format="easyedit"
    )

    assert first.request.target_new == "1931-05-02"
    assert first.paraphrase_prompts == ("Ostrava Minor is governed from",)
    assert second.paraphrase_prompts == ("A", "B")


def test_limit_reads_the_first_records_only(tmp_path: Path, counterfact_record: Record):
    records = [{**counterfact_record, "case_id": i} for i in range(3)] + [{}]
    path = write_json(tmp_path / "cases.json", records)

    cases = load_cases(path, limit=2)

    assert [case.request.case_id for case in cases] == [0, 1]
    with pytest.raises(ConfigurationError, match="limit of at least 1, found 0"):
        load_cases(path, limit=0)


BAD_RECORDS = {
    "no-slot": ({"prompt": "The capital is"}, r"prompt: expected exactly one '\{\}'"),
    "two-slots": ({"prompt": "{} and {} are"}, r"exactly one '\{\}' .*, found 2"),
    "empty-subject": ({"subject": " "}, r"requested_rewrite\.subject: .*found ' '"),
    "empty-target": (
        {"target_new": {"str": ""}},
        r"requested_rewrite\.target_new\.str: expected a text, found ''",
    ),
    "missing-target": (
        {"target_new": {"id": "Q1"}},
        r"requested_rewrite\.target_new\.str: .* found only 'id'",
    ),
}


@pytest.mark.parametrize(("change", "message"), BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_a_bad_record_is_named_by_file_place_case_and_field(
    tmp_path: Path, counterfact_record: Record, change: Record, message: str
):
    rewrite = counterfact_record["requested_rewrite"] | change
    bad = {**counterfact_record, "case_id": "b", "requested_rewrite": rewrite}
    path = write_json(tmp_path / "facts.json", [counterfact_record, bad])

    with pytest.raises(RequestFormatError, match=message) as caught:
        load_cases(path)

    assert str(caught.value).startswith(f"{path}, record 1 (case_id 'b'): ")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("check that the data format is the right one")


def test_a_case_id_that_occurs_twice_is_refused_with_both_places(
    tmp_path: Path, counterfact_record: Record
):
    other = {**counterfact_record, "case_id": 8}
    path = write_json(tmp_path / "f.json", [other, counterfact_record, other])

    with pytest.raises(
        RequestFormatError, match=r"f\.json, record 2 .*: case_id 8 .* record 0 already"
    ):
        load_cases(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "[]", "at least one record, found none"),
        ("a.jsonl", "", "at least one record, found none"),
        ("a.json", '[{"case_id": 1},', "expected JSON, found .*line 1"),
        ("a.json", '{"case_id": 1}', r"list of records, found dict; .*\.jsonl"),
        ("a.json", "[5]", "record 0: expected an object, found 5"),
        ("a.jsonl", "\n{bad\n", r"record 0 \(line 2\): expected JSON"),
        ("a.jsonl", "[]\n", r"record 0 \(line 1\): expected an object"),
    ],
)
def test_a_file_of_another_form_is_refused(
    tmp_path: Path, name: str, content: str, message: str
):
    path = tmp_path / name
    path.write_text(content)

    with pytest.raises(RequestFormatError, match=message):
        load_cases(path)


def test_text_in_another_encoding_is_refused(tmp_path: Path):
    for name in ("a.json", "a.jsonl"):
        path = tmp_path / name
        path.write_bytes('[{"subject": "Malmö"}]'.encode("latin-1"))

        with pytest.raises(RequestFormatError, match="expected JSON"):
            load_cases(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_format": "counterfacts"}, "'counterfacts'. Known: 'counterfact'"),
        ({"zsre_target": "answer"}, "'answer'. Known: 'answers'"),
        ({"split": "train"}, "a file has no splits"),
        ({}, "expected a file at '.*missing.json', found none"),
    ],
    ids=["format", "target", "split-of-a-file", "no-file"],
)
def test_unknown_options_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ConfigurationError, match=message):
        load_cases("missing.json", **options)


def test_a_hub_id_is_loaded_through_datasets(
    monkeypatch: pytest.MonkeyPatch, counterfact_record: Record
):
    rows = datasets.Dataset.from_list([counterfact_record])
    asked = []

    def load_dataset(name: str, *, split: str | None) -> object:
        asked.append((name, split))
        return rows if split else datasets.DatasetDict({"test": rows})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)

    named, only = load_cases("azhx/counterfact", split="test"), load_cases("a/b")

    assert asked == [("azhx/counterfact", "test"), ("a/b", None)]
    assert named == only
    assert named[0].request.target_new == "Lyria"
    assert len(named[0].neighborhood) == 2


def test_a_hub_data_set_with_several_splits_needs_the_name_of_one(
    monkeypatch: pytest.MonkeyPatch, counterfact_record: Record
):
    rows = datasets.Dataset.from_list([counterfact_record])
    several = datasets.DatasetDict({"train": rows, "test": rows})
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: several)

    with pytest.raises(ConfigurationError, match="one of 'train', 'test'"):
        load_cases("azhx/counterfact")


def test_a_source_that_is_neither_file_nor_data_set_is_refused():
    # Offline, see the conftest: the real library answers that it cannot be reached.
    with pytest.raises(ConfigurationError, match="id of a data set on the hub"):
        load_cases("no/such-data-set")


def test_published_multi_counterfact_records_are_read(published_data: Path):
    cases = load_cases(published_data / "multi_counterfact-50.json")

    assert len(cases) == 46
    assert cases[0].rewrite_prompt == "The mother tongue of Danielle Darrieux is"
    assert cases[0].request.target_new == "English"
    assert cases[0].target_true == "French"
    assert {len(case.paraphrase_prompts) for case in cases} == {2}
    assert {len(case.neighborhood) for case in cases} == {10}
