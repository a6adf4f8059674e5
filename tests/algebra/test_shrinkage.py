"""Shrinkage equals scikit-learn's, from sums alone, and does what it is for."""

import pytest
import torch
from sklearn.covariance import ledoit_wolf

from flwr_collabedit.algebra.second_moment import SecondMoment
from flwr_collabedit.algebra.shrinkage import ledoit_wolf_intensity, shrunk


def draw_keys(num_keys: int, d_key: int, *, seed: int = 0) -> torch.Tensor:
    """Correlated keys whose mean is far from zero."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d_key, d_key, generator=generator, dtype=torch.float64)
    keys = torch.randn(num_keys, d_key, generator=generator, dtype=torch.float64)
    return keys @ mixing + 2


def streamed(keys: torch.Tensor, rows: int = 7) -> SecondMoment:
    moment = SecondMoment(keys.shape[1])
    for batch in keys.split(rows):
        moment.add(batch)
    return moment


def test_half_a_shrinkage_by_hand():
    # m = (3 + 1) / 2 = 2; (C + 2 I) / 2.
    found = shrunk(torch.tensor([[3.0, 1.0], [1.0, 1.0]]).double(), 0.5)

    assert found.tolist() == [[2.5, 0.5], [0.5, 1.5]]


@pytest.mark.parametrize("num_keys", [2, 5, 12, 60, 1000])
def test_the_intensity_is_scikit_learns_of_keys_that_are_not_centred(num_keys: int):
    keys = draw_keys(num_keys, 12)
    expected, intensity = ledoit_wolf(keys.numpy(), assume_centered=True)

    moment = streamed(keys)

    assert 0 < intensity < 1
    assert moment.shrinkage() == pytest.approx(intensity, rel=1e-9)
    torch.testing.assert_close(
        moment.value(moment.shrinkage()), torch.from_numpy(expected)
    )


def test_merged_sums_shrink_as_those_of_all_keys():
    keys = draw_keys(9, 6)
    merged = streamed(keys[:4])
    merged.merge(streamed(keys[4:]))

    assert merged.shrinkage() == pytest.approx(streamed(keys).shrinkage(), rel=1e-12)


def test_keys_whose_second_moment_is_a_scaled_identity_are_shrunk_entirely():
    moment = torch.eye(4, dtype=torch.float64)
    spread = torch.tensor(8 * 4.0**2, dtype=torch.float64) * 1.5

    almost = moment + 1e-6 * torch.diag(torch.tensor([1, -1, 1, -1.0])).double()

    assert ledoit_wolf_intensity(moment, spread, 8) == 0.0  # nothing to shrink
    assert ledoit_wolf_intensity(almost, spread, 8) == 1.0


def test_one_key_says_nothing_of_the_error():
    assert streamed(draw_keys(1, 3)).shrinkage() == 0.0


def test_shrinking_brings_a_small_sample_nearer_to_the_truth():
    keys = draw_keys(20_000, 20)
    truth = keys.T @ keys / len(keys)
    few = streamed(keys[:20])

    plain = (few.value() - truth).norm()
    shrunken = (few.value(few.shrinkage()) - truth).norm()

    assert shrunken < plain


def test_fewer_keys_than_dimensions_become_positive_definite():
    few = streamed(draw_keys(5, 20))

    eigenvalues = torch.linalg.eigvalsh(few.value(few.shrinkage()))

    assert int((torch.linalg.eigvalsh(few.value()) > 1e-9).sum()) == 5
    assert float(eigenvalues.min()) > 0.01 * float(eigenvalues.mean())


def test_restored_sums_go_on_to_the_same_bits():
    keys = draw_keys(20, 5)
    whole = streamed(keys, rows=4)
    half = streamed(keys[:8], rows=4)

    again = SecondMoment.restored(
        half.total.clone(), half.fourth_powers.clone(), half.num_samples
    )
    for batch in keys[8:].split(4):
        again.add(batch)

    assert again.num_samples == whole.num_samples
    assert torch.equal(again.total, whole.total)
    assert torch.equal(again.fourth_powers, whole.fourth_powers)
