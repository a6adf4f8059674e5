"""The re-edit condition by hand, conflicts, and what a re-edit is to write."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flwr_collabedit.algebra.least_squares import solve_update
from flwr_collabedit.algebra.low_rank import extended_basis, to_low_rank
from flwr_collabedit.algebra.mediator import (
    MediatorVectors,
    calibrated_alpha,
    contradicts,
    re_edit_statistics,
    select_relevant,
)

D_VALUE, D_KEY = 4, 6


def random_vectors(count: int, seed: int = 0) -> MediatorVectors:
    generator = torch.Generator().manual_seed(seed)
    z, delta, keys = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((count, D_VALUE), (count, D_VALUE), (D_KEY, count))
    )
    return MediatorVectors(z, delta, {"w": keys}, torch.arange(count))


def test_at_least_half_of_the_own_vectors_must_be_near():
    own = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    # Cosines of (1, 1): 0.707, 0.707, -0.707, -0.707; of (1, 0): 1, 0, -1, 0.
    candidates = torch.tensor([[1.0, 1.0], [1.0, 0.0]])

    assert select_relevant(candidates, own, 0.7).tolist() == [True, False]
    assert select_relevant(candidates, own, 0.71).tolist() == [False, False]
    assert select_relevant(candidates, own, -0.1).tolist() == [True, True]
    assert select_relevant(candidates, own[:3], 0.5).tolist() == [True, False]


def test_a_cosine_that_equals_alpha_is_not_above_it():
    own = torch.tensor([[1.0, 0.0], [1.0, 0.0]])

    assert select_relevant(torch.tensor([[0.0, 1.0]]), own, 0.0).tolist() == [False]


@given(st.integers(0, 20), st.integers(1, 9), st.integers(0, 999))
def test_minus_one_selects_everything_and_one_nothing(num_candidates, num_own, seed):
    own = random_vectors(num_own, seed).z
    candidates = torch.cat([random_vectors(num_candidates, seed + 1).z, own, -own])

    assert select_relevant(candidates, own, -1.0).all()
    assert not select_relevant(candidates, own, 1.0).any()


def test_without_own_vectors_nothing_is_relevant():
    candidates = random_vectors(3).z

    assert not select_relevant(candidates, candidates[:0], -1.0).any()


@given(st.integers(0, 999), st.floats(-1, 1))
def test_a_candidate_is_judged_by_itself(seed, alpha):
    own, candidates = random_vectors(5, seed).z, random_vectors(8, seed + 1).z

    together = select_relevant(candidates, own, alpha)
    one_by_one = [select_relevant(c[None], own, alpha).item() for c in candidates]

    assert together.tolist() == one_by_one


@given(st.integers(0, 999), st.sampled_from([50.0, 90.0]), st.integers(1, 2))
def test_a_calibrated_alpha_judges_by_the_same_last_bit(seed, percentile, num_own):
    # It is one of the cosines, whose last bits depend on the shapes of the product.
    generator = torch.Generator().manual_seed(seed)
    own, one, other = (
        1 + torch.randn(n, 96, generator=generator, dtype=torch.float64)
        for n in (num_own, 1, 2)
    )
    alpha = calibrated_alpha([own, one, other], percentile)

    together = select_relevant(torch.cat([one, other]), own, alpha)
    apart = [select_relevant(group, own, alpha) for group in (one, other)]

    assert together.tolist() == torch.cat(apart).tolist()


def test_the_percentile_is_over_pairs_of_different_clients():
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    second = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    # Across: 0, 0.7071, 0, 0.7071 in both directions; within: 1 and 0.7071.

    assert calibrated_alpha([first, second], 50) == pytest.approx(0.0)
    assert calibrated_alpha([first, second], 51) == pytest.approx(0.5**0.5)
    assert calibrated_alpha([first, second], 100) == pytest.approx(0.5**0.5)
    assert calibrated_alpha([first], 50) == 1.0


def test_the_same_key_with_another_target_is_a_contradiction():
    one = random_vectors(3)
    nearly = {"w": one.keys["w"] * 1.7 + 1e-4}
    other = MediatorVectors(one.z, one.delta.flip(0), nearly, one.gradient_steps)

    found = contradicts(one, other, "w")

    assert found.tolist() == torch.diag(torch.tensor([True, False, True])).tolist()
    assert not contradicts(one, one, "w").any()


def test_what_is_left_to_write_is_nothing_once_it_is_there():
    vectors = random_vectors(2)
    keys = vectors.keys["w"]
    exact = 0.5 * vectors.delta.T @ torch.linalg.pinv(keys)

    fresh = re_edit_statistics(vectors, "w", 0.5, torch.zeros(D_VALUE, D_KEY).double())
    again = re_edit_statistics(vectors, "w", 0.5, exact)

    assert torch.allclose(fresh.cross, 0.5 * vectors.delta.T @ keys.T)
    assert torch.allclose(again.cross, torch.zeros_like(again.cross), atol=1e-12)


@given(st.integers(1, 12), st.integers(0, 99))
def test_writing_ones_own_vectors_leaves_less_and_never_more(count, seed):
    vectors, delta = random_vectors(count, seed), torch.zeros(D_VALUE, D_KEY).double()

    for _ in range(3):
        before = (0.5 * vectors.delta.T - delta @ vectors.keys["w"]).norm()
        statistics = re_edit_statistics(vectors, "w", 0.5, delta)
        delta = delta + solve_update(statistics, torch.eye(D_KEY).double())
        after = (0.5 * vectors.delta.T - delta @ vectors.keys["w"]).norm()
        assert after <= before + 1e-12


def test_low_rank_form_is_the_delta_and_small_while_edits_are_few():
    generator = torch.Generator().manual_seed(0)
    first, second = (
        torch.randn(D_VALUE, n, generator=generator, dtype=torch.float64)
        for n in (1, 2)
    )
    right = torch.randn(3, D_KEY, generator=generator, dtype=torch.float64)
    delta = torch.cat([first, second], dim=1) @ right

    basis = extended_basis(extended_basis(first[:, :0], first), second)

    assert basis.shape == (D_VALUE, 3)
    assert torch.allclose(basis @ to_low_rank(delta, basis), delta)
    assert extended_basis(basis, torch.randn(D_VALUE, 9).double()).shape[1] == D_VALUE
