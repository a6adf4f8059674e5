"""The update solves its normal equations and minimises its objective."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.factors import SealedFactors, seal
from flwr_collabedit.algebra.least_squares import (
    factor_cholesky,
    solve_update,
    solve_update_woodbury,
)
from flwr_collabedit.errors import MatrixError, SingularSystemError

SEEDS = st.integers(0, 2**32 - 1)
NUM_EDITS = st.integers(0, 12)
D_KEY, D_VALUE = 8, 3


def normal(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def draw_prior(seed: int, condition: float = 1e3) -> torch.Tensor:
    """Draw a symmetric positive definite matrix of a known condition number."""
    basis = torch.linalg.qr(normal(seed, D_KEY, D_KEY)).Q
    return basis * torch.logspace(0, -1, D_KEY, condition).double() @ basis.T


def objective(
    step: torch.Tensor,
    keys: torch.Tensor,
    residuals: torch.Tensor,
    prior: torch.Tensor,
    delta: torch.Tensor,
) -> float:
    moved = delta + step
    misfit = (step @ keys - residuals).square().sum()
    return float(misfit + torch.trace(moved @ prior @ moved.T))


def test_one_edit_gives_the_update_computed_by_hand():
    # K = (1, 2)^T, R = (3, -3)^T, C = diag(1, 4).
    # C + K K^T = [[1+1, 2], [2, 4+4]] = [[2, 2], [2, 8]], determinant 16 - 4 = 12,
    # inverse = [[8, -2], [-2, 2]] / 12.
    # R K^T = [[3, 6], [-3, -6]].
    # First row: (3*8 - 6*2, -3*2 + 6*2) / 12 = (12, 6) / 12 = (1, 0.5).
    keys, residuals = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [-3.0]])
    prior = torch.diag(torch.tensor([1.0, 4.0]))

    update = solve_update(EditStatistics.from_pairs(keys, residuals), prior)

    expected = torch.tensor([[1.0, 0.5], [-1.0, -0.5]]).double()
    torch.testing.assert_close(update, expected, rtol=1e-14, atol=0.0)


def test_a_repeated_step_is_pulled_back_as_computed_by_hand():
    # As above with Delta = [[1, 1], [0, 0]]: Delta C = [[1, 4], [0, 0]].
    # First row of R K^T - Delta C = (2, 2): (2*8 - 2*2, -2*2 + 2*2) / 12 = (1, 0).
    keys, residuals = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [-3.0]])
    prior = torch.diag(torch.tensor([1.0, 4.0]))
    delta = torch.tensor([[1.0, 1.0], [0.0, 0.0]])

    step = solve_update(EditStatistics.from_pairs(keys, residuals), prior, delta=delta)

    expected = torch.tensor([[1.0, 0.0], [-1.0, -0.5]]).double()
    torch.testing.assert_close(step, expected, rtol=1e-14, atol=1e-15)


@given(seed=SEEDS, num_edits=NUM_EDITS, has_delta=st.booleans())
@settings(max_examples=30, deadline=None)
def test_update_solves_the_normal_equations(seed: int, num_edits: int, has_delta: bool):
    keys, residuals = normal(seed, D_KEY, num_edits), normal(seed, D_VALUE, num_edits)
    statistics, prior = EditStatistics.from_pairs(keys, residuals), draw_prior(seed)
    delta = normal(seed + 1, D_VALUE, D_KEY) if has_delta else torch.zeros(())

    step = solve_update(statistics, prior, delta=delta if has_delta else None)

    # Half the gradient of the objective: (d K - R) K^T + (Delta + d) C = 0.
    gradient = (step @ keys - residuals) @ keys.T + (delta + step) @ prior
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-10)


@given(seed=SEEDS, num_edits=NUM_EDITS)
@settings(max_examples=30, deadline=None)
def test_update_equals_least_squares_on_the_stacked_system(seed: int, num_edits: int):
    keys, residuals = normal(seed, D_KEY, num_edits), normal(seed, D_VALUE, num_edits)
    prior = draw_prior(seed)
    root = torch.linalg.cholesky(prior)  # any root: ||D root||^2 = tr(D C D^T)
    stacked = torch.cat([keys, root], dim=1)
    wanted = torch.cat([residuals, torch.zeros(D_VALUE, D_KEY).double()], dim=1)

    update = solve_update(EditStatistics.from_pairs(keys, residuals), prior)

    oracle = torch.linalg.lstsq(stacked.T, wanted.T, driver="gelsd").solution.T
    torch.testing.assert_close(update, oracle, rtol=1e-8, atol=1e-10)


@given(seed=SEEDS, num_edits=NUM_EDITS, size=st.sampled_from([1e-3, 1e-1, 1.0]))
@settings(max_examples=30, deadline=None)
def test_no_other_step_has_a_smaller_objective(seed: int, num_edits: int, size: float):
    keys, residuals = normal(seed, D_KEY, num_edits), normal(seed, D_VALUE, num_edits)
    prior, delta = draw_prior(seed), normal(seed + 1, D_VALUE, D_KEY)
    terms = (keys, residuals, prior, delta)

    step = solve_update(EditStatistics.from_pairs(keys, residuals), prior, delta=delta)

    other = step + size * normal(seed + 2, D_VALUE, D_KEY)
    assert objective(step, *terms) < objective(other, *terms)


@given(seed=SEEDS, num_edits=NUM_EDITS, is_repeated=st.booleans())
@settings(max_examples=30, deadline=None)
def test_woodbury_equals_cholesky(seed: int, num_edits: int, is_repeated: bool):
    keys, residuals = normal(seed, D_KEY, num_edits), normal(seed, D_VALUE, num_edits)
    if is_repeated:
        keys, residuals = keys.repeat(1, 2), residuals.repeat(1, 2)
    prior = draw_prior(seed)

    update = solve_update_woodbury(seal(keys, residuals), factor_cholesky(prior))

    expected = solve_update(EditStatistics.from_pairs(keys, residuals), prior)
    assert update.shape == (D_VALUE, D_KEY)
    gap = torch.linalg.norm(update - expected)
    assert gap <= 1e-8 * torch.linalg.norm(expected)


def test_joined_factors_of_two_clients_give_the_merged_update():
    pairs = [(normal(i, D_KEY, 2), normal(9 + i, D_VALUE, 2)) for i in range(2)]
    sealed = [seal(*pair) for pair in pairs]
    joined = SealedFactors(
        torch.cat([factors.key_factor for factors in sealed], dim=1),
        torch.cat([factors.residual_factor for factors in sealed], dim=1),
        num_edits=4,
    )
    prior = draw_prior(0)

    update = solve_update_woodbury(joined, factor_cholesky(prior))

    merged = EditStatistics.from_pairs(*pairs[0]) + EditStatistics.from_pairs(*pairs[1])
    torch.testing.assert_close(update, solve_update(merged, prior), rtol=1e-9, atol=0)


def test_zero_residuals_leave_the_weight_as_it_is():
    statistics = EditStatistics.from_pairs(normal(0, D_KEY, 4), torch.zeros(D_VALUE, 4))

    assert torch.equal(
        solve_update(statistics, draw_prior(0)), torch.zeros(D_VALUE, D_KEY).double()
    )


def test_a_vanishing_prior_fits_independent_keys_exactly():
    keys, residuals = normal(0, D_KEY, 4), normal(1, D_VALUE, 4)

    update = solve_update(
        EditStatistics.from_pairs(keys, residuals), 1e-9 * draw_prior(0)
    )

    torch.testing.assert_close(update @ keys, residuals, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("weights", [(1.0, 10.0), (10.0, 1e6)])
def test_a_heavier_prior_changes_old_associations_less(weights: tuple[float, float]):
    statistics = EditStatistics.from_pairs(normal(0, D_KEY, 4), normal(1, D_VALUE, 4))
    prior = draw_prior(0)

    lighter, heavier = (solve_update(statistics, weight * prior) for weight in weights)

    changes = [torch.trace(d @ prior @ d.T) for d in (lighter, heavier)]
    assert 0 < changes[1] < changes[0]


@pytest.mark.parametrize("shift", [0.0, -1e-3], ids=["singular", "indefinite"])
def test_a_singular_system_is_refused_with_the_pivot_and_a_remedy(shift: float):
    keys = normal(0, D_KEY, 3)
    prior = shift * torch.eye(D_KEY).double()

    with pytest.raises(SingularSystemError, match=r"found pivot .* of 8"):
        solve_update(EditStatistics.from_pairs(keys, keys), prior)
    with pytest.raises(SingularSystemError, match="more keys than d_key"):
        solve_update(EditStatistics.from_pairs(keys, keys), prior)


def test_a_pivot_that_only_rounding_keeps_from_zero_is_refused():
    almost = 1.0 + torch.finfo(torch.float64).eps
    matrix = torch.tensor([[1.0, 1.0], [1.0, almost]], dtype=torch.float64)
    assert torch.linalg.cholesky_ex(matrix).info == 0

    with pytest.raises(SingularSystemError, match=r"pivot 2\.220e-16 at index 1 of 2"):
        factor_cholesky(matrix)


def test_the_reported_pivot_is_the_one_computed_by_hand():
    # [[4, 2], [2, 0.5]]: the second pivot is 0.5 - 2*2/4 = -0.5.
    matrix = torch.tensor([[4.0, 2.0], [2.0, 0.5]])

    with pytest.raises(SingularSystemError, match=r"pivot -5\.000e-01 at index 1 of 2"):
        factor_cholesky(matrix)


@pytest.mark.parametrize(
    ("prior", "delta", "message"),
    [
        (torch.eye(3), None, r"prior of shape \(2, 2\), found \(3, 3\)"),
        (torch.full((2, 2), torch.nan), None, "prior, found 4 of 4"),
        (torch.tensor([[2.0, 1.0], [0.0, 2.0]]), None, "symmetric prior"),
        (torch.eye(2), torch.zeros(2, 2), r"delta of shape \(1, 2\), found \(2, 2\)"),
    ],
    ids=["another-width", "nan", "not-symmetric", "another-layer"],
)
def test_a_prior_or_delta_of_the_wrong_form_is_refused(
    prior: torch.Tensor, delta: torch.Tensor | None, message: str
):
    with pytest.raises(MatrixError, match=message):
        solve_update(EditStatistics.zero(1, 2), prior, delta=delta)


def test_woodbury_refuses_a_factor_of_another_width():
    with pytest.raises(MatrixError, match=r"prior_factor of shape \(2, 2\)"):
        solve_update_woodbury(seal(torch.eye(2), torch.eye(2)), torch.eye(3))
