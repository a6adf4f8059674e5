"""Sums and counts merge exactly; the published numbers are those of the papers."""

import json
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_collabedit.errors import PayloadError
from flwr_collabedit.evaluation.metrics import (
    PUBLISHED_NAMES,
    MetricSums,
    harmonic_mean,
    summarize,
)

NAMES = ("efficacy-success", "efficacy-magnitude", "target-loss")
VALUES = st.floats(-1.0, 100.0, allow_nan=False)
CASES = st.lists(st.dictionaries(st.sampled_from(NAMES), VALUES), max_size=40)


def pooled(cases: list[dict[str, float]]) -> MetricSums:
    return MetricSums.merge(MetricSums.of(case) for case in cases)


@given(CASES, st.data())
def test_merging_clients_equals_pooling_cases_to_the_last_bit(cases, data):
    owners = data.draw(
        st.lists(st.integers(0, 4), min_size=len(cases), max_size=len(cases))
    )
    order = data.draw(st.permutations(range(5)))

    clients = [
        pooled([case for case, owner in zip(cases, owners, strict=True) if owner == k])
        for k in order
    ]

    assert MetricSums.merge(clients) == pooled(cases)


@given(st.lists(VALUES, min_size=1, max_size=40))
def test_mean_is_the_mean_over_cases(values):
    sums = pooled([{"target-loss": value} for value in values])

    assert sums.mean("target-loss") == pytest.approx(fmean(values), abs=1e-9)


@given(CASES)
def test_sums_survive_the_message(cases):
    sums = pooled(cases)

    flat = json.loads(json.dumps(sums.to_flat()))

    assert MetricSums.from_flat({"num-examples": 7, **flat, "loss": 1.0}) == sums


def test_a_large_client_counts_more_than_a_small_one():
    small = MetricSums.of({"efficacy-success": 1.0})
    large = pooled([{"efficacy-success": 0.0}] * 3)

    assert (small + large).mean("efficacy-success") == 0.25


def test_a_case_without_the_metric_is_not_counted():
    sums = pooled([{"efficacy-success": 1.0}, {"target-loss": 4.0}])

    assert sums.mean("efficacy-success") == 1.0
    assert sums.mean("paraphrase-success") is None


def test_flat_names_are_as_documented():
    sums = pooled([{"efficacy-success": 0.5}, {"efficacy-success": 1.0}])

    assert sums.to_flat() == {
        "efficacy-success/sum": 1.5,
        "efficacy-success/count": 2,
    }


@pytest.mark.parametrize(
    "flat",
    [
        {"a/sum": 1.0},
        {"a/count": 1},
        {"a/sum": float("nan"), "a/count": 1},
        {"a/sum": [1.0], "a/count": 1},
        {"a/sum": 1.0, "a/count": -1},
        {"a/sum": 1.0, "a/count": 1.5},
    ],
    ids=["no count", "no sum", "nan", "list", "negative count", "fractional count"],
)
def test_a_broken_message_is_refused_by_metric(flat):
    with pytest.raises(PayloadError, match="Metric 'a': expected"):
        MetricSums.from_flat(flat)


def test_harmonic_mean_is_three_over_the_sum_of_inverses():
    # 3 / (1/1 + 1/0.5 + 1/0.25) = 3 / 7
    assert harmonic_mean(1.0, 0.5, 0.25) == pytest.approx(3 / 7)
    assert harmonic_mean(1.0, 0.0, 0.25) == 0.0
    assert harmonic_mean(1.0, None, 0.25) is None


def test_score_is_the_harmonic_mean_of_means_not_a_mean_of_harmonic_means():
    successes = ("efficacy-success", "paraphrase-success", "neighborhood-success")
    sums = pooled(
        [
            dict(zip(successes, (1.0, 0.0, 1.0), strict=True)),
            dict(zip(successes, (1.0, 1.0, 0.5), strict=True)),
        ]
    )

    summary = summarize(sums)

    # means 1, 1/2, 3/4: 3 / (1 + 2 + 4/3) = 9/13; per case it would be (0 + 3/4) / 2.
    assert (summary["ES"], summary["PS"], summary["NS"]) == (100.0, 50.0, 75.0)
    assert summary["Score"] == pytest.approx(900 / 13)


def test_score_is_zero_when_one_mean_is_zero():
    sums = MetricSums.of(
        {
            "efficacy-success": 1.0,
            "paraphrase-success": 0.0,
            "neighborhood-success": 1.0,
        }
    )

    assert summarize(sums)["Score"] == 0.0


def test_without_old_answers_there_is_no_score_but_an_accuracy_score():
    kinds = ("efficacy", "paraphrase", "neighborhood")
    sums = MetricSums.of(
        {f"{kind}-accuracy": 0.5 for kind in kinds}
        | {f"{kind}-token-accuracy": 0.75 for kind in kinds}
    )

    summary = summarize(sums)

    assert summary["Score"] is None
    assert summary["ES"] is None
    assert summary["accuracy_score"] == pytest.approx(50.0)
    assert summary["token_accuracy_score"] == pytest.approx(75.0)


@pytest.mark.parametrize(("published", "metric"), PUBLISHED_NAMES.items())
def test_a_published_number_is_its_metric_in_percent(published, metric):
    summary = summarize(MetricSums.of({metric: 0.25}))

    others = {value for name, value in summary.items() if name != published}
    assert summary[published] == 25.0
    assert others == {None}
