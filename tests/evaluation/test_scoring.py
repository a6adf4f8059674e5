"""Batched scores equal scores computed one text at a time, and by hand."""

from math import exp, log

import pytest
import torch

from flwr_collabedit.data.requests import (
    EditRequest,
    EvaluationCase,
    MultiHopQuestion,
    Question,
)
from flwr_collabedit.errors import NonFiniteOutputError, RequestFormatError
from flwr_collabedit.evaluation.scoring import score_cases
from flwr_collabedit.models.language_model import LanguageModel
from tests.evaluation.constant_model import constant_language_model
from tests.pico import FAMILIES, pico_language_model


def case(target_new: str, target_true: str | None, **changes) -> EvaluationCase:
    request = EditRequest(
        case_id=changes.pop("case_id", 1),
        prompt="The capital of {} is",
        subject="France",
        target_new=target_new,
    )
    return EvaluationCase(request=request, target_true=target_true, **changes)


CASES = [
    case(
        "Rome",
        "Paris",
        paraphrase_prompts=(
            "Because France is what it is, its official capital is the city of",
            "Paris? No:",
        ),
        neighborhood=(
            Question(prompt="The capital of Germany is", answer="Berlin"),
            Question(prompt="In {} the set of", answer="Brazil, not Norway"),
        ),
        same_subject=(Question(prompt="France is in", answer="Europe"),),
        multi_hop=(
            MultiHopQuestion(
                phrasings=("What is the capital of it?", "Its capital?", "Where?"),
                answers=("Rome", "Apple Inc."),
            ),
            MultiHopQuestion(phrasings=("Who?",), answers=("Steve Jobs",)),
        ),
    ),
    case("London of course", "Apple Inc.", case_id="two"),
    case(
        "Hamburg",
        None,
        case_id=3,
        neighborhood=(Question(prompt="What is", answer="basketball"),),
    ),
]


def plain_score(
    lm: LanguageModel, prompt: str, target: str
) -> tuple[float, list[bool]]:
    """One text, all positions, the model's own head."""
    prompt_ids = lm.tokenizer(prompt)["input_ids"]
    ids = lm.tokenizer(f"{prompt} {target}")["input_ids"]
    assert ids[: len(prompt_ids)] == prompt_ids
    with torch.no_grad():
        log_p = lm.model(torch.tensor([ids])).logits[0].log_softmax(dim=-1)
    steps = range(len(prompt_ids), len(ids))
    loss = sum(-log_p[step - 1, ids[step]].item() for step in steps) / len(steps)
    return loss, [log_p[step - 1].argmax().item() == ids[step] for step in steps]


def prompt_scores(score):
    return (
        score.rewrite,
        *score.paraphrases,
        *score.neighborhood,
        *score.same_subject,
        *(prompt for question in score.multi_hop for prompt in question.prompts),
    )


def target_scores(scores):
    for score in scores:
        for prompt in prompt_scores(score):
            for target in (prompt.expected, prompt.rival):
                if target is not None:
                    yield prompt.prompt, target


@pytest.mark.parametrize("family", FAMILIES)
def test_batched_scores_equal_one_text_at_a_time(family):
    lm = pico_language_model(family)

    scored = list(target_scores(score_cases(lm, CASES, batch_size=5)))

    assert len(scored) == 2 * 3 + 2 * 2 + 1 + 7 + 2 + 1 + 1
    for prompt, target in scored:
        loss, hits = plain_score(lm, prompt, target.target)
        assert target.loss == pytest.approx(loss, rel=1e-5)
        assert target.token_accuracy == pytest.approx(sum(hits) / len(hits))
        assert target.correct == all(hits)


def test_batch_size_changes_nothing_but_rounding():
    lm = pico_language_model("gpt2")

    one_by_one = target_scores(score_cases(lm, CASES, batch_size=1))
    together = target_scores(score_cases(lm, CASES, batch_size=100))

    for (_, one), (_, other) in zip(one_by_one, together, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-5)


def test_scores_come_in_the_order_of_the_cases_with_their_prompts():
    scores = score_cases(pico_language_model("gpt2"), CASES)

    assert [score.case_id for score in scores] == [1, "two", 3]
    assert [prompt.prompt for prompt in prompt_scores(scores[0])[:6]] == [
        "The capital of France is",
        *CASES[0].paraphrase_prompts,
        "The capital of Germany is",
        "In {} the set of",
        "France is in",
    ]
    assert scores[2].rewrite.rival is None
    assert scores[2].neighborhood[0].rival is None


def test_a_longer_target_is_judged_by_its_mean_not_its_sum():
    # By sum "German" wins: 0.2 > 0.3 * 0.3; by mean "the capital" does: 0.3 > 0.2.
    lm = constant_language_model({" German": 0.2, " the": 0.3, " capital": 0.3})

    (score,) = score_cases(lm, [case("the capital", "German")])

    assert score.rewrite.expected.loss == pytest.approx(-log(0.3), abs=1e-6)
    assert score.rewrite.rival.loss == pytest.approx(-log(0.2), abs=1e-6)
    assert score.metrics()["efficacy-success"] == 1.0
    assert score.metrics()["efficacy-magnitude"] == pytest.approx(0.1, abs=1e-6)


def test_a_tie_fails_on_every_kind_of_prompt():
    lm = pico_language_model("gpt2")
    tied = case(
        "Rome",
        "Rome",
        paraphrase_prompts=("France:",),
        neighborhood=(Question(prompt="Italy:", answer="Rome"),),
    )

    (score,) = score_cases(lm, [tied], batch_size=1)

    successes = [v for k, v in score.metrics().items() if k.endswith("-success")]
    assert successes == [0.0, 0.0, 0.0]


def test_half_of_the_tokens_is_half_a_fraction_and_no_accuracy():
    lm = constant_language_model({" German": 0.6, " the": 0.2})

    (score,) = score_cases(lm, [case("German the German German", None)])

    assert score.rewrite.expected.token_accuracy == 0.75
    assert not score.rewrite.expected.correct


def test_neighborhood_is_won_by_its_own_answer():
    lm = constant_language_model({" German": 0.5, " the": 0.25})
    question = Question(prompt="Merkel:", answer="German")

    (score,) = score_cases(lm, [case("the", "London", neighborhood=(question,))])

    assert score.metrics()["neighborhood-success"] == 1.0
    assert score.metrics()["neighborhood-accuracy"] == 1.0
    assert score.metrics()["efficacy-accuracy"] == 0.0
    assert exp(-score.metrics()["target-loss"]) == pytest.approx(0.25, abs=1e-6)


def test_a_text_that_cases_share_is_read_once():
    reports = []
    cases = [case("Rome", "Paris", case_id=i) for i in range(3)]

    score_cases(
        pico_language_model("gpt2"),
        cases,
        progress=lambda done, total: reports.append((done, total)),
    )

    assert reports == [(2, 2)]


def test_no_cases_give_no_scores():
    assert score_cases(pico_language_model("gpt2"), []) == []


def test_a_prompt_beyond_the_context_is_refused_by_case():
    long = case("Rome", "Paris", paraphrase_prompts=("capital " * 200,))

    with pytest.raises(RequestFormatError, match=r"Case 1: .* at most 128"):
        score_cases(pico_language_model("gpt2"), [long])


def test_a_destroyed_model_is_refused_not_averaged():
    lm = constant_language_model({" German": 0.5})
    lm.model.lm_head.bias.data[0] = float("nan")

    with pytest.raises(NonFiniteOutputError, match="predicts 'Rome' after 'The cap"):
        score_cases(lm, [case("Rome", "Paris")])


def test_multi_hop_questions_keep_their_own_wordings_and_answers():
    (score,) = score_cases(pico_language_model("gpt2"), CASES[:1])

    asked = [
        [(prompt.prompt, prompt.expected.target) for prompt in question.prompts]
        for question in score.multi_hop
    ]
    assert asked == [
        [
            (phrasing, answer)
            for phrasing in ("What is the capital of it?", "Its capital?", "Where?")
            for answer in ("Rome", "Apple Inc.")
        ],
        [("Who?", "Steve Jobs")],
    ]


def test_multi_hop_accuracy_is_that_of_the_likeliest_answer():
    lm = constant_language_model({" German": 0.5, " the": 0.2})
    right, wrong = (
        case(
            "the",
            None,
            multi_hop=(MultiHopQuestion(phrasings=("Who?",), answers=answers),),
        )
        for answers in (("the", "German"), ("the", "German the"))
    )

    found = [score.metrics() for score in score_cases(lm, [right, wrong])]

    assert [values["multi-hop-accuracy"] for values in found] == [1.0, 0.0]
