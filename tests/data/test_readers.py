"""Each published layout becomes the same kind of case."""

from typing import Any

import pytest

from flwr_collabedit.data.counterfact import read_counterfact
from flwr_collabedit.data.easyedit import read_easyedit
from flwr_collabedit.data.requests import EditRequest, EvaluationCase, Question
from flwr_collabedit.data.zsre import read_zsre
from flwr_collabedit.errors import RequestFormatError

Record = dict[str, Any]


def test_counterfact_record_becomes_a_case(counterfact_record: Record):
    case = read_counterfact(counterfact_record)

    assert case == EvaluationCase(
        request=EditRequest(
            case_id=7,
            prompt="The capital of {} is",
            subject="Ostrava Minor",
            target_new="Lyria",
            relation_id="P36",
        ),
        target_true="Vandor",
        paraphrase_prompts=(
            "It rained. Ostrava Minor is governed from",
            "Ostrava Minor's capital city is",
        ),
        neighborhood=(
            Question(prompt="The capital of Belmar is", answer="Vandor"),
            Question(prompt="Belmar's capital is", answer="Vandor"),
        ),
        generation_prompts=("The parliament of Ostrava Minor sits in",),
    )
    assert case.rewrite_prompt == "The capital of Ostrava Minor is"


def test_easyedit_record_becomes_a_case(easyedit_record: Record):
    case = read_easyedit(easyedit_record, index=0)

    assert case == EvaluationCase(
        request=EditRequest(
            case_id=3,
            prompt="The capital of {} is",
            subject="Ostrava Minor",
            target_new="Lyria",
        ),
        target_true="Vandor",
        paraphrase_prompts=("Ostrava Minor is governed from",),
        neighborhood=(Question(prompt="The capital of Nerith is", answer="Sorun"),),
    )
    assert case.rewrite_prompt == easyedit_record["prompt"]


def test_easyedit_lists_hold_several_prompts(easyedit_record: Record):
    easyedit_record |= {
        "ground_truth": ["Vandor", "Vandor City"],
        "rephrase_prompt": ["A", "B"],
        "locality_prompt": ["C", "D"],
        "locality_ground_truth": ["c", " d"],
    }

    case = read_easyedit(easyedit_record, index=0)

    assert case.target_true == "Vandor"
    assert case.paraphrase_prompts == ("A", "B")
    assert case.neighborhood == (
        Question(prompt="C", answer="c"),
        Question(prompt="D", answer="d"),
    )


def test_easyedit_record_may_leave_out_what_only_scoring_needs(easyedit_record: Record):
    needed = {name: easyedit_record[name] for name in ("prompt", "subject")}

    case = read_easyedit({**needed, "target_new": "Lyria"}, index=41)

    assert case.request.case_id == 41
    assert case.target_true is None
    assert case.paraphrase_prompts == case.neighborhood == ()


@pytest.mark.parametrize(
    ("target", "target_new"), [("answers", "Vandor"), ("alt", "Lyria")]
)
def test_zsre_record_becomes_a_case(zsre_record: Record, target: str, target_new: str):
    case = read_zsre(zsre_record, index=5, target=target)

    assert case == EvaluationCase(
        request=EditRequest(
            case_id=5,
            prompt="Which city governs {}?",
            subject="Ostrava Minor",
            target_new=target_new,
        ),
        target_true=None,
        paraphrase_prompts=("What is Ostrava Minor's capital?",),
        neighborhood=(
            Question(
                prompt="nq question: who wrote the long road?", answer="Ada Merrow"
            ),
        ),
    )


def test_zsre_reads_only_the_target_that_was_chosen(zsre_record: Record):
    without_alt = {name: zsre_record[name] for name in zsre_record if name != "alt"}

    assert read_zsre(without_alt, index=0, target="answers")
    with pytest.raises(RequestFormatError, match="alt: expected an answer, found none"):
        read_zsre(without_alt, index=0, target="alt")
    with pytest.raises(RequestFormatError, match="answers: expected an answer"):
        read_zsre({**zsre_record, "answers": []}, index=0, target="answers")


@pytest.mark.parametrize(
    ("prompt", "count"),
    [("The capital of Belmar is", 0), ("Ostrava Minor: Ostrava Minor has", 2)],
    ids=["absent", "twice"],
)
def test_subject_must_be_in_the_prompt_once(
    easyedit_record: Record, zsre_record: Record, prompt: str, count: int
):
    message = f"'Ostrava Minor' exactly once, found it {count} times"

    with pytest.raises(RequestFormatError, match=f"prompt: .*{message}"):
        read_easyedit({**easyedit_record, "prompt": prompt}, index=0)
    with pytest.raises(RequestFormatError, match=f"src: .*{message}"):
        read_zsre({**zsre_record, "src": prompt}, index=0, target="alt")


def test_locality_prompts_and_answers_must_be_equally_many(easyedit_record: Record):
    easyedit_record["locality_prompt"] = ["A", "B"]

    with pytest.raises(RequestFormatError, match="each of the 2 in locality_prompt"):
        read_easyedit(easyedit_record, index=0)


@pytest.mark.parametrize("value", [None, "", "  ", 5, ["Lyria"]])
def test_a_target_that_is_no_text_is_refused_by_the_name_it_has_in_the_file(
    counterfact_record: Record, easyedit_record: Record, value: object
):
    counterfact_record["requested_rewrite"]["target_new"]["str"] = value
    easyedit_record["target_new"] = value

    with pytest.raises(
        RequestFormatError, match=r"^requested_rewrite\.target_new\.str: expected a"
    ):
        read_counterfact(counterfact_record)
    with pytest.raises(RequestFormatError, match=r"^target_new: expected a"):
        read_easyedit(easyedit_record, index=0)


@pytest.mark.parametrize("value", [None, True, 1.5])
def test_a_case_id_is_a_number_or_a_text(counterfact_record: Record, value: object):
    with pytest.raises(RequestFormatError, match=r"^case_id: expected a"):
        read_counterfact({**counterfact_record, "case_id": value})


def test_an_item_that_is_no_text_is_named_by_its_place(counterfact_record: Record):
    counterfact_record["neighborhood_prompts"][1] = ""

    with pytest.raises(
        RequestFormatError, match=r"neighborhood_prompts\[1\].*found ''"
    ):
        read_counterfact(counterfact_record)
