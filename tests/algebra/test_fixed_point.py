"""Numbers as limbs: what adding them keeps, and what is refused."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flwr_collabedit.algebra.fixed_point import (
    from_limbs,
    key_exponents,
    largest_limb_bits,
    powers_of_two,
    rounding_bound,
    to_limbs,
)
from flwr_collabedit.errors import MatrixError

BITS = st.integers(2, 30)
LIMBS = st.integers(1, 4)


def vector(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def exact(sums: list[torch.Tensor], bits: int) -> list[Fraction]:
    """Return what sums of limbs stand for, in rational numbers."""
    weights = [Fraction(2) ** (1 - bits * (i + 1)) for i in range(len(sums))]
    columns = zip(*(limb.tolist() for limb in sums), strict=True)
    return [
        sum(Fraction(x) * w for x, w in zip(column, weights, strict=True))
        for column in columns
    ]


@given(
    parties=st.lists(
        st.lists(st.floats(-1, 1), min_size=3, max_size=3), min_size=1, max_size=6
    ),
    num_limbs=LIMBS,
    bits=BITS,
)
def test_a_sum_of_limbs_is_within_the_bound_of_the_exact_sum(parties, num_limbs, bits):
    limbs = [to_limbs(vector(party), num_limbs, bits) for party in parties]
    sums = [sum(one) for one in zip(*limbs, strict=True)]

    bound = Fraction(rounding_bound(len(parties), num_limbs, bits))
    true = [sum(map(Fraction, column)) for column in zip(*parties, strict=True)]
    for found, expected in zip(exact(sums, bits), true, strict=True):
        assert abs(found - expected) <= bound


@given(values=st.lists(st.floats(-1, 1)), num_limbs=LIMBS, bits=BITS)
def test_limbs_are_integers_that_fit(values, num_limbs, bits):
    for limb in to_limbs(vector(values), num_limbs, bits):
        assert torch.equal(limb, limb.round())
        assert limb.numel() == 0 or limb.abs().max() <= 2 ** (bits - 1)


@given(values=st.lists(st.floats(-1, 1, width=32), min_size=1))
def test_enough_limbs_lose_nothing(values):
    # 24 bits below the smallest float32 of size 2^-149 lie within 7 limbs of 29 bits.
    found = from_limbs(to_limbs(vector(values), 7, 29), 29)

    assert torch.equal(found.total, vector(values))
    assert not found.low.any()


def test_limbs_by_hand():
    # 0.3 * 2^3 = 2.4: 2; 0.4 * 2^4 = 6.4: 6. Together 2/8 + 6/128 = 0.296875.
    limbs = to_limbs(vector([0.3, -1.0]), 2, 4)

    assert [limb.tolist() for limb in limbs] == [[2.0, -8.0], [6.0, 0.0]]
    assert from_limbs(limbs, 4).total.tolist() == [0.296875, -1.0]


def test_the_sum_keeps_what_one_float_cannot():
    total = from_limbs([vector([1.0]), vector([0.0]), vector([1.0])], 30)

    assert (total.total.item(), total.low.item()) == (2.0**-29, 2.0**-89)


@pytest.mark.parametrize("value", [1.0000001, -2.0, float("inf"), float("nan")])
def test_what_would_be_clipped_is_refused(value):
    with pytest.raises(MatrixError, match="clipped"):
        to_limbs(vector([0.5, value]), 2, 20)


@given(num_parties=st.integers(2, 2000))
def test_limbs_of_all_parties_fit_into_the_modulus(num_parties):
    bits = largest_limb_bits(num_parties)

    assert num_parties * 2**bits <= 2**31
    assert bits == 30 or num_parties * 2 ** (bits + 1) > 2**31


def test_bits_by_number_of_parties():
    assert [largest_limb_bits(n) for n in (2, 3, 4, 5, 100)] == [30, 29, 29, 28, 24]


def test_exponents_bracket_the_standard_deviation():
    diagonal = vector([4.0, 3.9, 1e-9, 0.0])

    exponents = key_exponents(diagonal)

    # sqrt(4) = 2 is not below 2^1; zero counts as 2^-40 of the largest.
    assert exponents == [2, 1, -14, -18]
    assert powers_of_two(exponents[:2]).tolist() == [4.0, 2.0]
