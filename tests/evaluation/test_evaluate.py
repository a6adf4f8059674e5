"""One call gives scores, generated answers and their sums."""

import json

from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.evaluation.evaluate import evaluate_cases
from flwr_collabedit.evaluation.metrics import MetricSums
from tests.evaluation.constant_model import constant_language_model
from tests.pico import pico_language_model

CASES = [
    EvaluationCase(
        request=EditRequest(
            case_id=index, prompt="{} is", subject="France", target_new=target
        ),
        target_true="the",
    )
    for index, target in enumerate(["German", "that", "capital"])
]


def test_scores_and_generated_answers_are_summed_over_the_same_cases():
    lm = constant_language_model({" German": 0.5, " the": 0.2, " that": 0.25})

    sums = evaluate_cases(lm, CASES).sums

    assert sums.totals["efficacy-success"] == (2.0, 3)
    assert sums.totals["efficacy-accuracy"] == (1.0, 3)
    assert sums.totals["generated-efficacy"] == (1.0, 3)


def test_clients_that_evaluate_their_own_cases_add_up_to_all_cases():
    lm = pico_language_model("gpt2")

    whole = evaluate_cases(lm, CASES).sums
    parts = [evaluate_cases(lm, part).sums for part in (CASES[:1], CASES[1:], [])]

    merged = MetricSums.merge(parts)
    assert merged.totals.keys() == whole.totals.keys()
    for name, (total, count) in merged.totals.items():
        # Batches differ, so losses do by rounding.
        assert abs(total - whole.totals[name][0]) < 1e-5
        assert count == whole.totals[name][1]


def test_the_results_file_has_a_json_object_a_case():
    evaluation = evaluate_cases(pico_language_model("gpt2"), CASES)

    lines = [json.loads(line) for line in evaluation.to_json_lines().splitlines()]

    assert [line["score"]["case_id"] for line in lines] == [0, 1, 2]
    assert [line["generated"]["case_id"] for line in lines] == [0, 1, 2]
    assert lines[1]["score"]["rewrite"]["rival"]["target"] == "the"
