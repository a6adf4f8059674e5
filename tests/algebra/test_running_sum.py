"""Sums against exact rational arithmetic, in any order, and with terms taken back."""

from fractions import Fraction

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.running_sum import RunningSum, StatisticsSum

# Magnitudes far apart, so that plain float64 addition loses digits; 90 bits in all.
terms = st.lists(
    st.tuples(st.integers(-(2**40), 2**40), st.integers(-20, 20)).map(
        lambda p: p[0] * 2.0 ** p[1]
    ),
    min_size=2,
    max_size=30,
)


def summed(values):
    total = RunningSum.of(torch.zeros(1, dtype=torch.float64))
    for value in values:
        total = total.plus(torch.tensor([value], dtype=torch.float64))
    return total


@settings(max_examples=200, deadline=None)
@given(values=terms)
def test_the_total_is_the_exact_sum_rounded_once(values):
    found = summed(values)

    exact = sum(map(Fraction, values))
    assert float(found.total) == float(exact)


@settings(max_examples=100, deadline=None)
@given(values=terms, seed=st.randoms())
def test_order_does_not_show(values, seed):
    shuffled = list(values)
    seed.shuffle(shuffled)

    assert torch.equal(summed(values).total, summed(shuffled).total)


@settings(max_examples=200, deadline=None)
@given(values=terms, kept=st.integers(0, 3), seed=st.randoms())
def test_what_is_left_after_cancellation_is_exact(values, kept, seed):
    found = summed(values)
    gone = values[kept:]
    seed.shuffle(gone)
    for value in gone:
        found = found.minus(torch.tensor([value], dtype=torch.float64))

    exact = sum(map(Fraction, values[:kept]))
    assert Fraction(float(found.total)) + Fraction(float(found.low)) == exact


def test_plain_addition_would_show_the_order():
    assert (1.0 + 2.0**-60) - 1.0 != (1.0 - 1.0) + 2.0**-60
    assert float(summed([1.0, 2.0**-60, -1.0]).total) == 2.0**-60


def statistics(seed, num_edits=5):
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(6, num_edits, generator=generator)
    return EditStatistics.from_pairs(keys, torch.randn(3, num_edits))


def test_what_is_taken_back_leaves_no_trace():
    one, two, three = (statistics(seed) for seed in range(3))

    kept = StatisticsSum.zero(3, 6).plus(one).plus(three).total
    found = StatisticsSum.zero(3, 6).plus(one).plus(two).plus(three).minus(two).total

    assert torch.equal(found.gram, kept.gram)
    assert torch.equal(found.cross, kept.cross)
    assert found.num_edits == kept.num_edits == 10
