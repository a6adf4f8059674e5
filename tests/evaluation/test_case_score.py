"""The metrics of one case, by hand from the scores of its prompts."""

from math import exp

import pytest

from flwr_collabedit.evaluation.case_score import (
    CaseScore,
    MultiHopScore,
    PromptScore,
    TargetScore,
    sums,
)


def target(loss: float, token_accuracy: float = 0.0) -> TargetScore:
    return TargetScore(
        target="x",
        loss=loss,
        token_accuracy=token_accuracy,
        correct=token_accuracy == 1,
    )


def contest(expected: TargetScore, rival: TargetScore | None = None) -> PromptScore:
    return PromptScore(prompt="p", expected=expected, rival=rival)


REWRITE = contest(target(1.0, 1.0), target(2.0))


def test_success_wants_the_strictly_smaller_loss():
    won, tied, lost = (contest(target(1.0), target(r)) for r in (1.5, 1.0, 0.5))

    score = CaseScore(case_id=1, rewrite=won, paraphrases=(won, tied, lost))

    assert score.metrics()["efficacy-success"] == 1.0
    assert score.metrics()["paraphrase-success"] == pytest.approx(1 / 3)


def test_magnitude_is_the_difference_of_geometric_mean_probabilities():
    rewrite = contest(target(1.0), target(2.0))
    neighborhood = (contest(target(0.5), target(3.0)),)

    score = CaseScore(case_id=1, rewrite=rewrite, neighborhood=neighborhood)

    metrics = score.metrics()
    assert metrics["efficacy-magnitude"] == pytest.approx(exp(-1) - exp(-2))
    assert metrics["neighborhood-magnitude"] == pytest.approx(exp(-0.5) - exp(-3))


def test_accuracy_is_all_or_nothing_and_token_accuracy_a_fraction():
    half, whole = contest(target(1.0, 0.5)), contest(target(1.0, 1.0))

    score = CaseScore(
        case_id=1,
        rewrite=half,
        paraphrases=(half, whole),
        neighborhood=(whole,),
        same_subject=(half, whole, whole, whole),
    )

    metrics = score.metrics()
    assert metrics["efficacy-accuracy"] == 0.0
    assert metrics["efficacy-token-accuracy"] == 0.5
    assert metrics["paraphrase-accuracy"] == 0.5
    assert metrics["paraphrase-token-accuracy"] == 0.75
    assert metrics["neighborhood-accuracy"] == 1.0
    assert metrics["retention-accuracy"] == 0.75


def test_prompts_are_averaged_within_a_case_before_cases_are():
    won, lost = contest(target(1.0), target(2.0)), contest(target(2.0), target(1.0))
    one = CaseScore(case_id=1, rewrite=won, paraphrases=(won,))
    two = CaseScore(case_id=2, rewrite=won, paraphrases=(lost, lost, lost))

    total = sums([one, two])

    # Over prompts it would be 1/4.
    assert total.mean("paraphrase-success") == 0.5
    assert total.totals["paraphrase-success"] == (1.0, 2)


def test_a_case_without_rivals_and_other_prompts_defines_accuracy_and_loss_only():
    score = CaseScore(case_id=1, rewrite=contest(target(1.25, 1.0)))

    assert score.metrics() == {
        "target-loss": 1.25,
        "efficacy-accuracy": 1.0,
        "efficacy-token-accuracy": 1.0,
    }


def test_a_case_score_is_one_line_of_json_and_reads_back():
    score = CaseScore(case_id="a\nb", rewrite=REWRITE, neighborhood=(REWRITE,))

    line = score.model_dump_json()

    assert "\n" not in line
    assert CaseScore.model_validate_json(line) == score


def test_a_multi_hop_question_is_answered_by_any_of_its_wordings():
    half, whole = contest(target(1.0, 0.5)), contest(target(1.0, 1.0))
    answered, unanswered = (
        MultiHopScore(prompts=prompts) for prompts in ((half, whole), (half, half))
    )

    score = CaseScore(case_id=1, rewrite=whole, multi_hop=(answered, unanswered))

    assert score.metrics()["multi-hop-accuracy"] == 0.5
    assert "multi-hop-accuracy" not in CaseScore(case_id=1, rewrite=half).metrics()
