"""One fact as three edits: D4S's own example, seeded draws, one key for all types."""

from collections import Counter

import pytest

from flwr_collabedit.data.fact_world import default_world, embedded_cases
from flwr_collabedit.data.question_types import (
    QuestionType,
    ask_as,
    objects_by_relation,
)
from flwr_collabedit.data.question_wording import WORDINGS
from flwr_collabedit.data.requests import EditRequest, EvaluationCase, Question
from flwr_collabedit.errors import ConfigurationError, RequestFormatError

# D4S, Table 1; the data has no true answer.
HAND = "shakes PersonX hand"
OPTIONS = ("to give him a treat", "to forgive him", "to live happily ever after", HAND)
ATOMIC = EvaluationCase(
    request=EditRequest(
        case_id=1,
        prompt="{} accepts PersonY appointment, resulting in PersonY",
        subject="PersonX",
        target_new=HAND,
    )
)
CAPITAL = EvaluationCase(
    request=EditRequest(
        case_id=7,
        prompt="The capital of {} is",
        subject="France",
        target_new="Rome",
        relation_id="capital",
    ),
    target_true="Paris",
    paraphrase_prompts=("France chose as its capital",),
    neighborhood=(Question(prompt="The capital of Spain is", answer="Madrid"),),
    same_subject=(Question(prompt="France lies in", answer="Europe"),),
)
CITIES = ("Berlin", "Lima", "Madrid", "Oslo", "Paris", "Rome", "Tokyo")
QUESTIONS: list[QuestionType] = ["multiple-choice", "true-false"]
CASES = embedded_cases(300, subjects="all")
OBJECTS = default_world().answers


def asked(kind: QuestionType, wording: str, **options: int) -> list[EvaluationCase]:
    return [
        ask_as(
            case,
            kind,
            OBJECTS[case.request.relation_id],
            wording=WORDINGS[wording],
            **options,
        )
        for case in CASES
    ]


def test_multiple_choice_is_d4s_example() -> None:
    found = {
        ask_as(ATOMIC, "multiple-choice", OPTIONS, seed=seed).rewrite_prompt: seed
        for seed in range(400)
    }

    example = (
        "PersonX accepts PersonY appointment, resulting in PersonY ? Below are four "
        "options: (a) to give him a treat; (b) to forgive him; (c) to live happily "
        "ever after; (d) shakes PersonX hand. The correct option is"
    )

    assert len(found) == 24  # every order of four options
    case = ask_as(ATOMIC, "multiple-choice", OPTIONS, seed=found[example])
    assert case.request.target_new == "d"
    assert case.target_true is None


def test_true_false_is_d4s_example() -> None:
    cases = [ask_as(ATOMIC, "true-false", OPTIONS, seed=seed) for seed in range(40)]
    by_answer = {case.request.target_new: case for case in cases}

    assert by_answer["yes"].rewrite_prompt == (
        "PersonX accepts PersonY appointment, resulting in PersonY shakes PersonX "
        "hand . Is this sentence logical? Please answer yes or no. A:"
    )
    assert HAND not in by_answer["no"].rewrite_prompt
    assert (by_answer["yes"].target_true, by_answer["no"].target_true) == ("no", "yes")


def test_direct_generation_is_the_case_itself() -> None:
    assert ask_as(CAPITAL, "direct-generation", ()) == CAPITAL


@pytest.mark.parametrize("kind", QUESTIONS)
@pytest.mark.parametrize("wording", WORDINGS)
def test_up_to_the_subject_the_text_is_that_of_direct_generation(
    kind: QuestionType, wording: str
) -> None:
    for case, question in zip(CASES, asked(kind, wording), strict=True):
        own, other = case.request, question.request

        assert other.prompt.startswith(own.prompt)
        assert other.prompt.count("{}") == 1
        assert (other.subject, other.case_id) == (own.subject, own.case_id)


@pytest.mark.parametrize("wording", WORDINGS)
def test_the_right_option_stands_at_its_label_and_the_old_answer_is_another(
    wording: str,
) -> None:
    words = WORDINGS[wording]
    for case, question in zip(CASES, asked("multiple-choice", wording), strict=True):
        pool = OBJECTS[case.request.relation_id]
        right = question.request.target_new
        offered = [
            label
            for label in words.labels
            for text in pool
            if words.option.format(label=label, text=text)
            + (words.separator if label != words.labels[-1] else ".")
            in question.rewrite_prompt
        ]

        assert sorted(offered) == sorted(words.labels)
        for label, text in (
            (right, case.request.target_new),
            (question.target_true, case.target_true),
        ):
            option = words.option.format(label=label, text=text)
            assert option in question.rewrite_prompt
        assert right != question.target_true


def test_places_and_truth_values_are_spread_evenly() -> None:
    places = Counter(c.request.target_new for c in asked("multiple-choice", "d4s"))
    truth = Counter(c.request.target_new for c in asked("true-false", "d4s"))

    assert set(places) == {"a", "b", "c", "d"}
    assert min(places.values()) > 50  # of 300, 75 each expected
    assert set(truth) == {"yes", "no"}
    assert min(truth.values()) > 120


def test_a_false_statement_states_the_old_answer() -> None:
    for case, question in zip(CASES, asked("true-false", "numbers"), strict=True):
        holds = question.request.target_new == "one"
        stated = case.request.target_new if holds else case.target_true

        prompt = f"{case.rewrite_prompt} {stated}. one or two:"
        assert question.rewrite_prompt == prompt
        assert question.target_true == ("two" if holds else "one")


@pytest.mark.parametrize("kind", QUESTIONS)
def test_a_question_depends_on_its_own_case_and_the_seed(kind: QuestionType) -> None:
    assert asked(kind, "d4s", seed=1) == asked(kind, "d4s", seed=1)
    assert asked(kind, "d4s", seed=1) != asked(kind, "d4s", seed=2)
    backwards = ask_as(CAPITAL, kind, reversed(CITIES), seed=3)
    assert backwards == ask_as(CAPITAL, kind, CITIES, seed=3)


def test_every_process_draws_the_same_question() -> None:
    short = WORDINGS["short"]
    choice = ask_as(CAPITAL, "multiple-choice", CITIES, wording=short)
    truth = ask_as(CAPITAL, "true-false", CITIES, wording=short)

    assert choice.rewrite_prompt == (
        "The capital of France is a: Tokyo b: Rome c: Oslo d: Paris. "
        "The one you take is"
    )
    assert truth.rewrite_prompt == "The capital of France is Rome. yes or no:"


@pytest.mark.parametrize("kind", QUESTIONS)
def test_paraphrases_ask_the_same_question_and_other_knowledge_is_left(
    kind: QuestionType,
) -> None:
    question = ask_as(CAPITAL, kind, CITIES)
    tail = question.rewrite_prompt.removeprefix("The capital of France is")

    assert question.paraphrase_prompts == (f"France chose as its capital{tail}",)
    assert question.neighborhood == CAPITAL.neighborhood
    assert question.same_subject == CAPITAL.same_subject


def test_too_few_objects_are_refused_with_the_case() -> None:
    with pytest.raises(RequestFormatError, match=r"Case 7: .* 2 other .* found 1"):
        ask_as(CAPITAL, "multiple-choice", ("Rome", "Paris", "Lima"))
    with pytest.raises(RequestFormatError, match=r"Case 1: .* 3 other"):
        ask_as(ATOMIC, "multiple-choice", (HAND, "to forgive him"))
    with pytest.raises(RequestFormatError, match=r"Case 1: .* 1 other"):
        [ask_as(ATOMIC, "true-false", (HAND,), seed=seed) for seed in range(20)]


def test_an_unknown_type_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="'multiple-choice'"):
        ask_as(CAPITAL, "multiple-choices", CITIES)  # type: ignore[arg-type]


def test_objects_are_those_of_the_same_relation() -> None:
    other = EvaluationCase(
        request=CAPITAL.request.model_copy(
            update={"relation_id": "continent", "target_new": "Asia"}
        )
    )

    assert objects_by_relation([CAPITAL, other, CAPITAL]) == {
        "capital": ("Paris", "Rome"),
        "continent": ("Asia",),
    }
