"""An augmented case is its edit, and edits of its paraphrases and related facts."""

from flwr_collabedit.data.augmentation import augmented
from flwr_collabedit.data.counterfact import read_counterfact
from flwr_collabedit.data.requests import EditRequest, EvaluationCase, Question


def make_case(**changes) -> EvaluationCase:
    request = EditRequest(
        case_id=7,
        prompt="The capital of {} is",
        subject="France",
        target_new="Rome",
        relation_id="P36",
    )
    return EvaluationCase(request=request, target_true="Paris", **changes)


def test_paraphrases_have_the_edits_target_and_related_facts_their_own():
    case = make_case(
        paraphrase_prompts=("It rained. France is governed from", "France's seat is"),
        related=(Question(prompt="The mayor of France's capital is", answer="Ada"),),
    )

    edits = augmented(case)

    assert edits[0] == case.request
    assert [edit.model_dump() for edit in edits[1:]] == [
        {
            "case_id": case_id,
            "prompt": prompt,
            "subject": "France",
            "target_new": target,
            "relation_id": "P36",
        }
        for case_id, prompt, target in [
            ("7-paraphrase-0", "It rained. {} is governed from", "Rome"),
            ("7-paraphrase-1", "{}'s seat is", "Rome"),
            ("7-related-0", "The mayor of {}'s capital is", "Ada"),
        ]
    ]


def test_prompts_in_which_the_subject_is_not_exactly_once_add_nothing():
    case = make_case(
        paraphrase_prompts=(
            "Its capital is",
            "FRANCE is governed from",
            "France is France, and its capital is",
            "In {} France has the capital",
            "France is governed from",
        )
    )

    assert [edit.case_id for edit in augmented(case)] == [7, "7-paraphrase-4"]


def test_the_edit_itself_is_not_repeated_but_may_get_another_object():
    prompt = "The capital of France is"
    case = make_case(
        paraphrase_prompts=(prompt,),
        related=(
            Question(prompt=prompt, answer="Rome"),
            Question(prompt=prompt, answer="Lyon"),
        ),
    )

    assert [(e.case_id, e.target_new) for e in augmented(case)] == [
        (7, "Rome"),
        ("7-related-1", "Lyon"),
    ]


def test_counterfacts_paraphrases_hold_the_subject(counterfact_record):
    edits = augmented(read_counterfact(counterfact_record))

    assert [edit.prompt for edit in edits] == [
        "The capital of {} is",
        "It rained. {} is governed from",
        "{}'s capital city is",
    ]
