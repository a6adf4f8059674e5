"""A user's own records: the same from CSV and JSON, and clear where they are wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from flwr_collabedit.data.loading import load_cases
from flwr_collabedit.data.plain import read_plain, to_plain
from flwr_collabedit.data.requests import EditRequest, EvaluationCase, Question
from flwr_collabedit.errors import RequestFormatError

Record = dict[str, Any]

FULL = EvaluationCase(
    request=EditRequest(
        case_id="a7",
        prompt="The capital of {} is",
        subject="Ostrava Minor",
        target_new="Lyria, the new",
        relation_id="P36",
    ),
    target_true="Vandor",
    paraphrase_prompts=("Ostrava Minor is ruled from", "The seat of Ostrava Minor is"),
    neighborhood=(
        Question(prompt="The capital of Belmar is", answer="Vandor"),
        Question(prompt="The capital of Nerith is", answer="Sorun"),
    ),
)
FULL_CSV = """\
case_id{d}Subject {d} prompt{d}target_new{d}target_true{d}relation_id{d}\
paraphrases{d}neighborhood
a7{d} Ostrava Minor{d}The capital of Ostrava Minor is{d} "Lyria, the new"{d}Vandor{d}\
P36{d}{{}} is ruled from | The seat of {{}} is{d}\
The capital of Belmar is | The capital of Nerith is => Sorun
"""


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=["comma", "semi", "tab"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_a_csv_row_is_a_case(tmp_path: Path, delimiter: str, encoding: str, end: str):
    text = FULL_CSV.format(d=delimiter).replace("\n", end)
    path = write(tmp_path / "facts.CSV", text, encoding)

    assert load_cases(path, data_format="plain") == [FULL]


def test_json_lists_and_objects_say_the_same(tmp_path: Path):
    record = {
        "case_id": "a7",
        "subject": "Ostrava Minor",
        "prompt": "The capital of {} is",
        "target_new": "Lyria, the new",
        "target_true": "Vandor",
        "relation_id": "P36",
        "paraphrases": ["{} is ruled from", "The seat of Ostrava Minor is"],
        "neighborhood": [
            "The capital of Belmar is",
            {"prompt": "The capital of Nerith is", "answer": "Sorun"},
        ],
    }
    path = write(tmp_path / "facts.json", json.dumps([record]))

    assert load_cases(path, data_format="plain") == [FULL]


def test_a_case_survives_the_plain_form():
    assert read_plain(to_plain(FULL), index=3) == FULL
    bare = FULL.model_copy(
        update={"target_true": None, "neighborhood": (), "paraphrase_prompts": ()}
    )
    assert read_plain(to_plain(bare), index=3) == bare


def test_numbered_columns_are_taken_in_order_and_as_they_are(plain_record: Record):
    plain_record |= {
        "paraphrase_10": "Third | with a bar",
        "paraphrase_2": "Second",
        "paraphrase_1": None,
        "paraphrases": "First",
        "neighborhood_1": "The capital of Nerith is => Sorun",
    }

    case = read_plain(plain_record, index=0)

    assert case.paraphrase_prompts == ("First", "Second", "Third | with a bar")
    assert case.neighborhood == (
        Question(prompt="The capital of Nerith is", answer="Sorun"),
    )


def test_only_three_fields_are_needed_and_the_id_is_the_place(plain_record: Record):
    case = read_plain(plain_record, index=9)

    assert case.request.case_id == 9
    assert case.target_true is None
    assert case.paraphrase_prompts == case.neighborhood == ()


BAD = {
    "near": ({"target_nw": "a"}, r"target_nw: unknown field\. Known: 'target_new'"),
    "synonym": ({"question": "a"}, "question: unknown field; is it 'prompt'"),
    "two unknown": ({"b1": "a", "b2": "a"}, "b1: unknown .* b2: unknown"),
    "no subject": ({"prompt": "The capital is"}, r"'\{\}' in .*found it 0 times"),
    "twice": (
        {"prompt": "Ostrava Minor, in Ostrava Minor"},
        "'Ostrava Minor' exactly once, found it 2 times",
    ),
    "number": ({"target_new": 1976}, "target_new: expected a text, found 1976"),
    "blank": ({"target_new": " "}, "target_new: expected a text, found ' '"),
    "no answer": (
        {"neighborhood": "The capital of Nerith is"},
        r"neighborhood\[0\]: expected a prompt and, behind ' => ', its answer",
    ),
    "two true": ({"target_true": ["a", "b"]}, "target_true: expected a text"),
    "object": ({"paraphrases": {"a": 1}}, "paraphrases: expected a text or a list"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_a_wrong_field_is_named(plain_record: Record, change: Record, message: str):
    with pytest.raises(RequestFormatError, match=message):
        read_plain(plain_record | change, index=0)


BAD_FILES = {
    "too many cells": (
        "subject,prompt,target_new\nA,{} is,b\n\nA,{} is, no, c\n",
        r"record 1 \(line 4\): expected 3 cells as in the header, found 4",
    ),
    "empty cell": (
        "subject,prompt,target_new\nA,{} is,\n",
        r"record 0 \(line 2\): target_new: expected a value",
    ),
    "open quotation": (
        'subject,prompt,target_new\nA,{} is,"b\nC,{} is,d\n',
        r"record 0 \(line 2\): expected cells in CSV, found .*end of data",
    ),
    "one column": ("subject\nA\n", "a header of columns .* found 'subject'"),
    "same name": ("subject,subject\nA,B\n", "a different name for each column"),
    "no row": ("subject,prompt,target_new\n", "at least one record, found none"),
    "empty": ("", "at least one record, found none"),
}


@pytest.mark.parametrize(("text", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_wrong_row_is_named_by_its_line(tmp_path: Path, text: str, message: str):
    path = write(tmp_path / "facts.csv", text)

    with pytest.raises(RequestFormatError, match=message) as caught:
        load_cases(path, data_format="plain")

    assert str(caught.value).startswith(str(path))


def test_a_cell_may_hold_line_breaks_and_trailing_cells_may_lack(tmp_path: Path):
    text = (
        "subject,prompt,target_new,target_true,,\n"
        'A,"{} is\nin",b,,,\n'
        ",,,,,\n"
        'C,{} is,"say ""d"""\n'
        "E,F is,g\n"
    )
    path = write(tmp_path / "facts.csv", text)

    with pytest.raises(RequestFormatError, match=r"record 2 \(line 6\): prompt"):
        load_cases(path, data_format="plain")
    first, second = load_cases(path, data_format="plain", limit=2)

    assert first.request.prompt == "{} is\nin"
    assert second.request.target_new == 'say "d"'


def test_text_in_another_encoding_is_refused(tmp_path: Path):
    path = write(tmp_path / "f.csv", "subject,prompt,target_new\nMalmö,{},a", "latin-1")

    with pytest.raises(RequestFormatError, match="expected text in UTF-8"):
        load_cases(path, data_format="plain")
