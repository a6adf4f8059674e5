"""The streaming second moment equals the one computed at once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_collabedit.algebra.second_moment import SecondMoment
from flwr_collabedit.errors import MatrixError, SecondMomentError

BATCH_SIZES = st.lists(st.integers(0, 6), min_size=1, max_size=5)


def draw_keys(seed: int, num_keys: int, d_key: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_keys, d_key, generator=generator)


def test_two_keys_give_the_moment_computed_by_hand():
    # (1, 0) and (1, 2): sum = [[1+1, 0+2], [2, 0+4]], halved; no mean is subtracted.
    moment = SecondMoment(2)

    moment.add(torch.tensor([[1.0, 0.0], [1.0, 2.0]]))

    assert moment.value().tolist() == [[1.0, 1.0], [1.0, 2.0]]
    assert moment.num_samples == 2


@given(seed=st.integers(0, 2**32 - 1), sizes=BATCH_SIZES)
@settings(max_examples=30, deadline=None)
def test_streaming_and_merging_equal_one_shot(seed: int, sizes: list[int]):
    keys = draw_keys(seed, 1 + sum(sizes))
    expected = keys.double().T @ keys.double() / len(keys)
    streamed, merged = SecondMoment(5), SecondMoment(5)

    for batch in keys.split([*sizes, 1]):
        streamed.add(batch)
        part = SecondMoment(5)
        part.add(batch)
        merged.merge(part)

    assert streamed.num_samples == merged.num_samples == len(keys)
    torch.testing.assert_close(streamed.value(), expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(merged.value(), expected, rtol=1e-12, atol=1e-14)


def test_a_refused_batch_adds_nothing():
    moment = SecondMoment(5)
    moment.add(draw_keys(0, 3))
    before = moment.value()

    with pytest.raises(MatrixError, match="keys, found 5 of 5"):
        moment.add(torch.full((1, 5), torch.inf))
    with pytest.raises(MatrixError, match=r"keys of shape \(any, 5\), found \(2, 4\)"):
        moment.add(torch.zeros(2, 4))

    assert torch.equal(moment.value(), before)
    assert moment.num_samples == 3


def test_moments_of_different_widths_cannot_be_merged():
    with pytest.raises(MatrixError, match="width 2, found 3"):
        SecondMoment(2).merge(SecondMoment(3))


def test_a_moment_of_no_keys_has_no_value():
    with pytest.raises(SecondMomentError, match="at least one key"):
        SecondMoment(2).value()
