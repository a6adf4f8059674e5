"""AlphaEdit's solve: the published formula, its minimum, and what it leaves alone."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.projection import NullSpacePrior, null_space_basis
from flwr_collabedit.errors import ConfigurationError, MatrixError, SingularSystemError

SEEDS = st.integers(0, 2**32 - 1)
NUM_EDITS = st.integers(0, 12)
# Some of the eigenvalues below the threshold, some above.
D_KEY, D_VALUE, THRESHOLD, L2 = 9, 3, 0.02, 0.7
EIGENVALUES = torch.tensor([1e-4, 1e-3, 0.005, 0.01, 0.019, 0.021, 0.3, 2, 40]).double()


def normal(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def moment_and_vectors(seed: int) -> tuple[Tensor, Tensor]:
    """Draw a second moment of known eigenvalues; return its eigenvectors, too."""
    vectors = torch.linalg.qr(normal(seed, D_KEY, D_KEY)).Q
    return vectors * EIGENVALUES @ vectors.T, vectors


def draw(seed: int, num_edits: int) -> tuple[Tensor, Tensor, EditStatistics]:
    keys, residuals = normal(seed, D_KEY, num_edits), normal(seed + 1, D_VALUE, 12)
    residuals = residuals[:, :num_edits]
    return keys, residuals, EditStatistics.from_pairs(keys, residuals)


def draw_prior(seed: int, num_earlier: int = 0) -> tuple[NullSpacePrior, Tensor]:
    """Draw a prior, and the keys of the earlier edits in it."""
    prior = NullSpacePrior.of(moment_and_vectors(seed)[0], THRESHOLD, L2)
    earlier = normal(seed + 2, D_KEY, num_earlier)
    return (prior.plus(earlier @ earlier.T) if num_earlier else prior), earlier


def test_one_edit_gives_the_update_computed_by_hand():
    # C0 = diag(1, 0.01): the null space below 0.02 is the second coordinate.
    # K = (1, 2)^T, R = 3, l2 = 2: R k_2 / (k_2^2 + l2) = 6 / (4 + 2) = 1.
    statistics = EditStatistics.from_pairs(
        torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0]])
    )
    prior = NullSpacePrior.of(torch.diag(torch.tensor([1.0, 0.01])), 0.02, 2.0)

    update = prior.update(statistics)

    torch.testing.assert_close(update, torch.tensor([[0.0, 1.0]]).double())
    # An earlier key (5, 3) adds 9: 6 / (4 + 2 + 9).
    again = prior.plus(torch.tensor([[25.0, 15.0], [15.0, 9.0]]).double())
    torch.testing.assert_close(
        again.update(statistics), torch.tensor([[0.0, 0.4]]).double()
    )


@given(seed=SEEDS, num_edits=NUM_EDITS, num_earlier=st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_the_symmetric_form_equals_the_published_one(seed, num_edits, num_earlier):
    keys, residuals, statistics = draw(seed, num_edits)
    prior, earlier = draw_prior(seed, num_earlier)

    update = prior.update(statistics)

    vectors = moment_and_vectors(seed)[1][:, EIGENVALUES < THRESHOLD]
    projector = vectors @ vectors.T
    cache = earlier @ earlier.T
    published = torch.linalg.solve(
        projector @ (keys @ keys.T + cache) + L2 * torch.eye(D_KEY).double(),
        projector @ keys @ residuals.T,
    ).T
    torch.testing.assert_close(update, published, rtol=1e-9, atol=1e-10)


@given(seed=SEEDS, num_edits=st.integers(1, 12), size=st.sampled_from([1e-3, 0.1, 1.0]))
@settings(max_examples=40, deadline=None)
def test_no_other_step_in_the_null_space_has_a_smaller_objective(seed, num_edits, size):
    keys, residuals, statistics = draw(seed, num_edits)
    prior, earlier = draw_prior(seed, 4)
    delta = normal(seed + 3, D_VALUE, prior.basis.shape[1]) @ prior.basis.T

    def objective(step):
        moved = delta + step
        misfit = (step @ keys - residuals).square().sum()
        return misfit + L2 * moved.square().sum() + (moved @ earlier).square().sum()

    step = prior.update(statistics, delta=delta)

    other = step + size * normal(seed + 4, *step.shape) @ prior.basis @ prior.basis.T
    assert objective(step) < objective(other)


@given(seed=SEEDS, num_edits=st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_a_step_repeated_on_what_is_left_stays_where_it_is(seed, num_edits):
    keys, residuals, statistics = draw(seed, num_edits)
    prior, _ = draw_prior(seed, 3)
    delta = prior.update(statistics)

    left = EditStatistics.from_pairs(keys, residuals - delta @ keys)
    step = prior.update(left, delta=delta)

    assert step.norm() < 1e-10 * delta.norm()
    assert prior.update(left).norm() > 1e-6 * delta.norm()


@given(seed=SEEDS, num_edits=st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_outputs_of_the_preserved_keys_are_unchanged(seed, num_edits):
    moment, vectors = moment_and_vectors(seed)
    prior, _ = draw_prior(seed, 2)
    preserved = vectors[:, EIGENVALUES >= THRESHOLD]
    known = preserved @ normal(seed + 5, preserved.shape[1], 20)

    delta = prior.update(draw(seed, num_edits)[2])

    change = (delta @ known).norm(dim=0)
    assert delta.norm() > 1e-3
    assert bool((change <= 1e-6 * delta.norm() * known.norm(dim=0)).all())
    # What is changed on average over all keys is bounded by the threshold.
    mean_square = torch.trace(delta @ moment @ delta.T)
    assert 0 < mean_square < THRESHOLD * delta.square().sum()


@given(
    seed=SEEDS,
    owners=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    num_earlier=st.integers(0, 3),
)
@settings(max_examples=40, deadline=None)
def test_merged_equals_pooled_for_any_split(seed, owners, num_earlier):
    keys, residuals, pooled = draw(seed, len(owners))
    prior, _ = draw_prior(seed, num_earlier)

    merged = EditStatistics.zero(D_VALUE, D_KEY)
    for client in range(4):
        own = [i for i, owner in enumerate(owners) if owner == client]
        merged += EditStatistics.from_pairs(keys[:, own], residuals[:, own])

    expected = prior.update(pooled)
    assert (prior.update(merged) - expected).norm() <= 1e-11 * expected.norm()


def test_scaling_and_adding_are_those_of_the_formula():
    prior, earlier = draw_prior(1, 4)
    statistics = draw(1, 5)[2]
    half = EditStatistics(statistics.gram / 3, statistics.cross / 3, 5)
    two = draw_prior(1)[0]
    for key in earlier.T:
        two = two.plus(torch.outer(key, key))

    # Both sides of the system a third: the same solution.
    same = prior.scaled(1 / 3).update(half)

    torch.testing.assert_close(same, prior.update(statistics))
    torch.testing.assert_close(two.update(statistics), prior.update(statistics))
    assert prior.scaled(3).l2 == pytest.approx(3 * L2)


def test_the_basis_spans_what_is_below_the_threshold():
    moment, vectors = moment_and_vectors(3)

    basis = null_space_basis(moment.float(), THRESHOLD)

    assert (basis.dtype, tuple(basis.shape)) == (torch.float64, (D_KEY, 5))
    torch.testing.assert_close(basis.T @ basis, torch.eye(5).double())
    below = vectors[:, :5]
    torch.testing.assert_close(
        basis @ basis.T, below @ below.T, rtol=1e-2, atol=1e-2
    )  # a float32 second moment: 1e-6 of 40 moves vectors of 0.019 and 0.021 a little


def test_the_prior_tells_the_size_of_keys_and_moves_as_a_whole():
    moment, _ = moment_and_vectors(4)
    prior = NullSpacePrior.of(moment, THRESHOLD, L2)

    moved = prior.to(torch.empty(0, device="meta"))

    assert torch.equal(prior.key_squares, moment.diagonal())
    assert prior.d_key == moved.d_key == D_KEY
    tensors = (moved.basis, moved.kept, moved.key_squares)
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.l2 == L2


@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        (1e-5, r"smallest 0\.0001, median 0\.019, largest 40\).*1e-05: nothing could"),
        (41.0, r"largest 40\), found 41: nothing is kept; lower it"),
    ],
)
def test_a_threshold_beside_the_eigenvalues_is_refused(threshold, message):
    with pytest.raises(ConfigurationError, match=message):
        null_space_basis(moment_and_vectors(0)[0], threshold)


@pytest.mark.parametrize(
    ("moment", "message"),
    [
        (torch.tensor([[1.0, 0.5], [0.0, 1e-3]]), "symmetric second moment"),
        (torch.full((2, 2), torch.nan), "second moment, found 4 of 4"),
        (torch.zeros(2, 3), r"second moment of shape \(any, 2\), found \(2, 3\)"),
    ],
)
def test_a_second_moment_of_the_wrong_form_is_refused(moment, message):
    with pytest.raises(MatrixError, match=message):
        null_space_basis(moment, THRESHOLD)


def test_statistics_of_another_layer_are_refused():
    with pytest.raises(MatrixError, match=r"gram of shape \(9, 9\), found \(2, 2\)"):
        draw_prior(0)[0].update(EditStatistics.zero(D_VALUE, 2))


def test_an_l2_that_vanishes_is_refused_with_its_remedy():
    prior = replace(draw_prior(0)[0], l2=1e-30)

    with pytest.raises(SingularSystemError, match="raise l2, which is 1e-30"):
        prior.update(draw(0, 2)[2])
