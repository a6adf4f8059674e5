"""Who competes on which prompt."""

from flwr_collabedit.data.requests import EditRequest, EvaluationCase, Question
from flwr_collabedit.evaluation.contests import Contest, Text, contests_of, texts_of

CASE = EvaluationCase(
    request=EditRequest(
        case_id=1, prompt="The capital of {} is", subject="France", target_new="Rome"
    ),
    target_true="Paris",
    paraphrase_prompts=("France is governed from",),
    neighborhood=(Question(prompt="The capital of Spain is", answer="Madrid"),),
    same_subject=(Question(prompt="In France they pay in", answer="euro"),),
)


def test_the_edit_should_win_where_it_applies_and_lose_elsewhere():
    contests = contests_of(CASE)

    assert contests.rewrite == (Contest("The capital of France is", "Rome", "Paris"),)
    assert contests.paraphrases == (
        Contest("France is governed from", "Rome", "Paris"),
    )
    assert contests.neighborhood == (
        Contest("The capital of Spain is", "Madrid", "Rome"),
    )
    assert contests.same_subject == (Contest("In France they pay in", "euro", None),)


def test_without_an_old_answer_nothing_competes():
    case = CASE.model_copy(update={"target_true": None})

    contests = [contest for group in contests_of(case) for contest in group]

    assert {contest.rival for contest in contests} == {None}
    assert len(list(texts_of(contests_of(case)))) == len(contests) == 4


def test_braces_in_a_question_are_text():
    question = Question(prompt="In Python, {} is a", answer="dict")
    case = CASE.model_copy(update={"neighborhood": (question,)})

    assert Text("In Python, {} is a", "dict") in texts_of(contests_of(case))
