"""Free texts of cases: which are written, what they say, and that sums add up."""

import math

import pytest
import torch

from flwr_collabedit.data.reference_texts import ReferenceTexts
from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.errors import RequestFormatError
from flwr_collabedit.evaluation.case_score import sums
from flwr_collabedit.evaluation.evaluate import evaluate_cases
from flwr_collabedit.evaluation.fluency import fluency
from flwr_collabedit.evaluation.metrics import MetricSums, summarize
from flwr_collabedit.evaluation.reference_score import ReferenceScore
from flwr_collabedit.evaluation.text_quality import TextQuality, write_texts
from tests.evaluation.constant_model import constant_language_model
from tests.pico import pico_language_model


def case(number, target="Rome", prompts=(), subject="France"):
    request = EditRequest(
        case_id=number,
        prompt="The capital of {} is",
        subject=subject,
        target_new=target,
        relation_id="capital",
    )
    return EvaluationCase(
        request=request, paraphrase_prompts=("So it is",), generation_prompts=prompts
    )


TWICE = ("I think that", "You know that", "I think that")
KNOWN = ReferenceTexts({}, {("capital", "Rome"): ("Rome has ruins", "ruins in Rome")})


class FirstTextLength:
    """A reference that is easy to check."""

    def of(self, case, texts):
        return None if case.request.case_id == 2 else 1 / len(texts)


def test_prompts_of_a_case_that_are_equal_get_texts_of_their_own():
    (found,) = write_texts(
        pico_language_model("gpt2"), [case(0, prompts=TWICE)], TextQuality(12)
    )

    assert [text.startswith(p) for text, p in zip(found.texts, TWICE, strict=True)] == [
        True
    ] * 3
    assert found.texts[0] != found.texts[2]


def test_without_generation_prompts_the_fact_itself_is_asked():
    (found,) = write_texts(pico_language_model("gpt2"), [case(0)], TextQuality(4))

    assert [text[:8] for text in found.texts] == ["The capi", "So it is"]


def test_a_cases_fluency_is_the_mean_over_its_texts_with_their_prompts():
    lm = constant_language_model({" German": 0.999})
    (found,) = write_texts(lm, [case(0)], TextQuality(6, top_k=1))

    texts = [
        prompt + " German" * 6 for prompt in ("The capital of France is", "So it is")
    ]
    assert found.texts == tuple(texts)
    assert found.fluency == pytest.approx(sum(map(fluency, texts)) / 2)
    assert found.metrics() == {"fluency": found.fluency}


def test_a_case_without_reference_counts_for_fluency_only():
    quality = TextQuality(4, reference=FirstTextLength())
    cases = [case(1), case(2), case(3, prompts=TWICE)]

    total = sums(write_texts(pico_language_model("gpt2"), cases, quality))

    assert total.totals["fluency"][1] == 3
    # 1/2 and 1/3, rounded to the grid of sums.
    assert total.totals["consistency"] == (pytest.approx(5 / 6), 2)


def test_tables_show_hundredths_of_bits_and_percent():
    total = MetricSums.of({"fluency": 6.22, "consistency": 0.4})

    shown = summarize(total)

    assert shown["fluency"] == pytest.approx(622.0)
    assert shown["consistency"] == pytest.approx(40.0)


def test_clients_texts_are_those_of_one_party_and_the_model_is_left_alone():
    lm = pico_language_model("llama")
    before = {name: value.clone() for name, value in lm.model.state_dict().items()}
    quality = TextQuality(8, reference=ReferenceScore(KNOWN))
    cases = [case(0), case(1, prompts=TWICE), case(2, prompts=TWICE, subject="Norway")]

    whole = evaluate_cases(lm, cases, text_quality=quality)
    parts = [
        evaluate_cases(lm, some, text_quality=quality)
        for some in (cases[1:2], cases[::2])
    ]

    assert [one.texts for one in whole.texts[1:2]] == [parts[0].texts[0].texts]
    for name in ("fluency", "consistency"):
        merged = MetricSums.merge(part.sums for part in parts)
        assert merged.totals[name] == whole.sums.totals[name]
    after = lm.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_texts_are_written_only_if_asked_for_and_told_case_by_case():
    lm = pico_language_model("gpt2")

    without = evaluate_cases(lm, [case(0)])
    with_texts = evaluate_cases(lm, [case(0)], text_quality=TextQuality(3))

    assert "fluency" not in without.sums.totals
    assert '"texts"' not in without.to_json_lines()
    assert with_texts.sums.totals["fluency"][1] == 1
    assert '"fluency"' in with_texts.to_json_lines()


def test_the_reference_score_is_the_cosine_of_tf_idf_vectors():
    # Three documents. idf = ln((1 + 3) / (1 + df)) + 1.
    references = ReferenceTexts(
        {"7": ("rome rome ruins",)}, {("", "x"): ("rome paris", "oslo")}
    )
    score = ReferenceScore(references)
    common, rare = math.log(4 / 3) + 1, math.log(2) + 1
    asked = EvaluationCase(
        request=EditRequest(case_id=7, prompt="{} is", subject="a", target_new="b")
    )

    found = score.of(asked, ["Rome", "and ruins, ruins!"])

    ours, known = (common, 2 * rare), (2 * common, rare)  # of rome and ruins
    dot = sum(a * b for a, b in zip(ours, known, strict=True))
    assert found == pytest.approx(dot / math.hypot(*ours) / math.hypot(*known))
    assert score.of(asked, ["rome rome", "ruins"]) == pytest.approx(1.0)
    assert score.of(asked, ["paris oslo"]) == 0.0
    assert score.of(asked, ["words that nobody knows"]) == 0.0


def test_a_case_without_references_has_no_score():
    assert ReferenceScore(KNOWN).of(case(0, target="Oslo"), ["Rome"]) is None


def test_references_without_words_are_refused():
    with pytest.raises(RequestFormatError, match="two letters or more"):
        ReferenceScore(ReferenceTexts({"1": ("! a .",)}, {}))
