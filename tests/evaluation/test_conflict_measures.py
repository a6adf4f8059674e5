"""Tables 4 and 6 equal the plain formulas, winner minus loser."""

from math import exp, log

import pytest
import torch

from flwr_collabedit.data.conflicts import ConflictPair, conflicting_cases
from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.evaluation.case_score import sums
from flwr_collabedit.evaluation.conflict_measures import (
    score_pairs,
    summarize_contests,
    summarize_sides,
)
from flwr_collabedit.evaluation.metrics import summarize
from flwr_collabedit.evaluation.scoring import score_cases
from tests.evaluation.constant_model import constant_language_model
from tests.pico import FAMILIES, pico_language_model


def case(case_id: int, target: str, **changes: str) -> EvaluationCase:
    request = EditRequest(
        case_id=case_id,
        prompt=changes.get("prompt", "The capital of {} is"),
        subject=changes.get("subject", "France"),
        target_new=target,
    )
    return EvaluationCase(
        request=request,
        target_true="Paris",
        paraphrase_prompts=("France is governed from",),
    )


PAIRS = [
    ConflictPair(case(0, "Rome"), case(1, "the city of London")),
    ConflictPair(case(2, "Portuguese, not Spanish"), case(3, "German")),
    ConflictPair(
        case(4, "Asia", prompt="{} belongs to", subject="Japan"),
        case(5, "Europe", prompt="{} is in", subject="Japan"),
    ),
]


def plain_probability(lm, prompt: str, target: str) -> float:
    """exp(-mean token NLL), one text, all positions, the model's own head."""
    start = len(lm.tokenizer(prompt)["input_ids"])
    ids = lm.tokenizer(f"{prompt} {target}")["input_ids"]
    with torch.no_grad():
        log_p = lm.model(torch.tensor([ids])).logits[0].double().log_softmax(dim=-1)
    losses = [-log_p[i - 1, ids[i]].item() for i in range(start, len(ids))]
    return exp(-sum(losses) / len(losses))


@pytest.mark.parametrize("family", FAMILIES)
def test_table_4_is_the_plain_formula_on_the_winners_prompt(family: str):
    lm = pico_language_model(family)
    prompts = ["The capital of France is"] * 2 + ["Japan belongs to"]
    expected = [
        plain_probability(lm, prompt, winner.request.target_new)
        - plain_probability(lm, prompt, loser.request.target_new)
        for prompt, (winner, loser) in zip(prompts, PAIRS, strict=True)
    ]

    scores = score_pairs(lm, PAIRS, batch_size=2)
    found = summarize_contests(scores)

    assert [s.probability_difference for s in scores] == pytest.approx(
        expected, rel=1e-4, abs=1e-9
    )
    assert found["probability_difference"] == pytest.approx(
        100 * sum(expected) / 3, rel=1e-4, abs=1e-7
    )
    assert [s.success for s in scores] == [value > 0 for value in expected]
    assert found["success"] == pytest.approx(
        100 * sum(value > 0 for value in expected) / 3
    )


def test_the_difference_is_the_winners_minus_the_losers_in_percent_points():
    lm = constant_language_model({" German": 0.5, " the": 0.25, " capital": 0.01})
    wins = ConflictPair(case(0, "German"), case(1, "the capital"))
    loses = ConflictPair(wins.second, wins.first)

    one, other = (summarize_contests(score_pairs(lm, [p])) for p in (wins, loses))

    # Of two tokens the geometric mean counts: sqrt(0.25 * 0.01) = 0.05.
    assert one == {
        "probability_difference": pytest.approx(45, abs=1e-4),
        "success": 100,
        "answered": 100,
    }
    assert other == {
        "probability_difference": pytest.approx(-45, abs=1e-4),
        "success": 0,
        "answered": 0,
    }


def test_a_likelier_winner_need_not_be_the_answer():
    lm = constant_language_model({" German": 0.5, " the": 0.2, " capital": 0.1})

    [score] = score_pairs(lm, [ConflictPair(case(0, "the"), case(1, "capital"))])

    assert score.success
    assert summarize_contests([score])["answered"] == 0
    assert score.contest.rival.loss == pytest.approx(-log(0.1), abs=1e-6)


def test_a_tie_is_no_success():
    # Contradictions differ by more than spelling, so this takes two cases by hand.
    tied = ConflictPair(case(0, "Rome"), case(1, "Rome"))

    [score] = score_pairs(pico_language_model("gpt2"), [tied])

    assert not score.success
    assert score.probability_difference == 0


def test_table_6_is_each_side_scored_alone():
    lm = pico_language_model("gpt2")
    winners, losers = zip(*PAIRS, strict=True)

    found = summarize_sides(score_pairs(lm, PAIRS))

    for side, cases in zip(found, (winners, losers), strict=True):
        expected = summarize(sums(score_cases(lm, cases)))
        assert defined(side) == pytest.approx(defined(expected), rel=1e-4)
    assert found[0] != found[1]
    assert {"ES", "EA", "PS", "PA"} <= defined(found[0]).keys()


def defined(summary: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in summary.items() if value is not None}


def test_generated_contradictions_can_be_scored():
    originals = [case(0, "Rome"), case(1, "London", subject="Norway")]
    rivals = conflicting_cases(originals, 2)
    pairs = map(ConflictPair, originals, rivals)

    scores = score_pairs(pico_language_model("gpt2"), pairs)

    assert [s.loser.case_id for s in scores] == ["0-conflict", "1-conflict"]
    assert [s.contest.rival.target for s in scores] == ["London", "Rome"]


def test_no_pairs_have_no_numbers():
    assert score_pairs(pico_language_model("gpt2"), []) == []
    assert set(summarize_contests([]).values()) == {None}
    assert set(summarize_sides([])[0].values()) == {None}
