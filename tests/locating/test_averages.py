"""Averages over facts, by hand."""

import pytest
from traces_by_hand import made_trace

from flwr_collabedit.locating.averages import TraceAverages

# A subject at positions 1 to 3, two tokens after it; two layers.
LONG = made_trace(
    (1, 3),
    6,
    clean=0.9,
    corrupted=0.1,
    state=[[0.2, 0.3, 0.4, 0.5, 0.6], [0.1, 0.1, 0.7, 0.1, 0.9]],
    nothing=[0.5, 0.6],
    mlp=[0.2, 0.5],
)
# A subject of one token, then two more and the last one.
SHORT = made_trace(
    (0, 0),
    4,
    clean=0.7,
    corrupted=0.2,
    state=[[0.6, 0.2, 0.4, 0.3], [0.5, 0.2, 0.2, 0.7]],
    nothing=[0.6, 0.6],
    mlp=[0.1, 0.4],
)


def means(estimates) -> list[float]:
    return [pytest.approx(estimate.mean) for estimate in estimates]


def test_effects_are_differences_from_the_corrupted_run():
    averages = TraceAverages.of([LONG, SHORT])

    assert averages.clean.mean == pytest.approx(0.8)
    assert averages.corrupted.mean == pytest.approx(0.15)
    assert averages.total.mean == pytest.approx((0.8 + 0.5) / 2)
    state = averages.indirect["state"]
    assert means(state["last subject token"]) == [(0.3 + 0.4) / 2, (0.6 + 0.3) / 2]
    assert means(state["last token"]) == [(0.5 + 0.1) / 2, (0.8 + 0.5) / 2]
    assert means(averages.entering["nothing"]) == [0.4, 0.45]


def test_a_role_counts_the_facts_that_have_it():
    state = TraceAverages.of([LONG, SHORT]).indirect["state"]

    assert means(state["first subject token"]) == [0.1, 0.0]
    assert state["first subject token"][0].count == 1
    assert means(state["further tokens"]) == [0.2, 0.0]
    assert "further tokens" not in TraceAverages.of([LONG]).indirect["state"]


def test_several_positions_of_a_role_count_once():
    wide = made_trace(
        (0, 3),
        5,
        clean=1,
        corrupted=0,
        state=[[0.0, 0.2, 0.4, 0.0, 0.0]],
        nothing=[0],
        mlp=[0],
    )
    middle = TraceAverages.of([wide, wide]).indirect["state"]["middle subject tokens"]

    assert means(middle) == [0.3]
    assert middle[0].count == 2


def test_the_gap_is_within_facts_and_has_their_interval():
    averages = TraceAverages.of([LONG, SHORT])

    assert means(averages.gap["mlp"]) == [(0.3 + 0.5) / 2, (0.1 + 0.2) / 2]
    # Two values 0.2 apart: half of it, times Student's t for one degree of freedom.
    assert averages.gap["mlp"][0].half_width == pytest.approx(0.1 * 12.7062)
