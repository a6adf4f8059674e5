"""Whose efficacy is whose: each round's edits, each client's, and the server's word."""

import pytest

from flwr_collabedit.client import scores
from flwr_collabedit.client.scores import ClientScores
from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.evaluation.case_score import CaseScore, PromptScore, TargetScore
from flwr_collabedit.evaluation.evaluate import Evaluation
from flwr_collabedit.strategies import RoundGuard, RoundReport
from flwr_collabedit.strategies.evaluation_figures import (
    efficacy_by_round,
    own_efficacy,
)


def case(number):
    request = EditRequest(
        case_id=number, prompt="{} is in", subject=f"Town {number}", target_new="Rome"
    )
    return EvaluationCase(request=request)


def scored(lm, cases, text_quality=None, progress=None):
    """Cases of odd id hold, those of even id do not."""
    scores = []
    for one in cases:
        holds = one.request.case_id % 2 == 1
        target = TargetScore(
            target="Rome", loss=1.0, token_accuracy=float(holds), correct=holds
        )
        prompt = PromptScore(prompt=one.rewrite_prompt, expected=target)
        scores.append(CaseScore(case_id=one.request.case_id, rewrite=prompt))
    return Evaluation(scores, [])


@pytest.fixture
def sums(monkeypatch):
    monkeypatch.setattr(scores, "evaluate_cases", scored)
    by_round = {1: [case(1), case(3), case(2)], 2: [], 3: [case(4), case(6)]}
    return ClientScores(None, "client-0").own(by_round, 3)


def test_a_rounds_efficacy_is_of_its_own_edits(sums):
    found = efficacy_by_round(sums)

    assert set(found) == {"1", "3"}
    assert found["1"]["EA"] == pytest.approx(200 / 3, abs=1e-6)
    assert (found["1"]["edits"], found["3"]["edits"]) == (3, 2)
    assert found["3"]["EA"] == 0.0
    assert own_efficacy(sums, 1) == pytest.approx(200 / 3, abs=1e-6)
    assert own_efficacy(sums, 2) is None


def test_a_client_below_the_bound_is_named_and_no_other():
    report = RoundReport(4, efficacy_by_client={"poor": 49.0, "fair": 51.0})

    (warning,) = RoundGuard(warn_efficacy=0.5).warnings(report)

    assert "'poor' reports an efficacy of 49.0 %" in warning
