"""ROME's update, by its laws and by hand."""

import pytest
import torch

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.least_squares import factor_cholesky, solve_update
from flwr_collabedit.algebra.rank_one import key_direction, rank_one_update
from flwr_collabedit.errors import MatrixError, SingularSystemError

SIZES = [(3, 2), (7, 5), (40, 8)]


def drawn(d_key: int, d_value: int) -> tuple[torch.Tensor, ...]:
    """Return a second moment, a key, another key and a residual."""
    generator = torch.Generator().manual_seed(d_key)
    root = torch.randn(d_key, 3 * d_key, generator=generator, dtype=torch.float64)
    vectors = [
        torch.randn(size, generator=generator, dtype=torch.float64)
        for size in (d_key, d_key, d_value)
    ]
    return root @ root.T / (3 * d_key), *vectors


def test_a_two_by_two_case_by_hand():
    # C0 = diag(4, 1): C0^-1 (4, 3) = (1, 3), of length sqrt(10); k . u = 13 / sqrt(10).
    moment = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
    key, residual = torch.tensor([4.0, 3.0]), torch.tensor([26.0, -13.0])

    direction = key_direction(key, factor_cholesky(moment))
    update = rank_one_update(residual, key, direction)

    root = 10**0.5
    torch.testing.assert_close(direction, torch.tensor([1 / root, 3 / root]).double())
    expected = torch.tensor([[2.0, 6.0], [-1.0, -3.0]], dtype=torch.float64)
    torch.testing.assert_close(update, expected)


@pytest.mark.parametrize(("d_key", "d_value"), SIZES)
def test_the_update_gives_the_key_its_residual_and_nothing_to_what_is_orthogonal(
    d_key: int, d_value: int
):
    moment, key, other, residual = drawn(d_key, d_value)
    direction = key_direction(other, factor_cholesky(moment))

    update = rank_one_update(residual, key, direction)

    torch.testing.assert_close(update @ key, residual)
    beside = key - (key @ direction) * direction
    assert (update @ beside).norm() < 1e-10 * residual.norm()


@pytest.mark.parametrize(("d_key", "d_value"), SIZES)
def test_with_one_key_it_is_the_limit_of_memits_ridge_update(d_key: int, d_value: int):
    moment, key, _, residual = drawn(d_key, d_value)
    pair = EditStatistics.from_pairs(key[:, None], residual[:, None])

    found = rank_one_update(residual, key, key_direction(key, factor_cholesky(moment)))

    gaps = [
        float((solve_update(pair, weight * moment) - found).norm() / found.norm())
        for weight in (1e-3, 1e-5)
    ]
    assert gaps[1] < 1e-5
    assert gaps[1] < 0.02 * gaps[0]  # it falls in proportion to lambda


def test_no_other_update_that_writes_the_key_disturbs_the_old_keys_less():
    moment, key, other, residual = drawn(7, 5)
    direction = key_direction(key, factor_cholesky(moment))

    def disturbance(update: torch.Tensor) -> float:
        return float(torch.trace(update @ moment @ update.T))

    found = disturbance(rank_one_update(residual, key, direction))

    assert found < disturbance(rank_one_update(residual, key, key_direction(key)))
    assert found < disturbance(
        rank_one_update(residual, key, key_direction(key + 0.01 * other))
    )


def test_a_multiple_of_the_second_moment_or_of_the_key_gives_the_same_direction():
    moment, key, _, _ = drawn(7, 5)

    one = key_direction(key, factor_cholesky(moment))

    torch.testing.assert_close(
        one, key_direction(3 * key, factor_cholesky(15_000 * moment))
    )
    torch.testing.assert_close(key_direction(key), key / key.norm())


def test_what_cannot_be_written_is_refused():
    first, second = torch.eye(2, dtype=torch.float64)

    with pytest.raises(SingularSystemError, match=r"orthogonal.*consistent keys"):
        rank_one_update(first, first, second)
    with pytest.raises(MatrixError, match="2 zeros"):
        key_direction(torch.zeros(2))
    with pytest.raises(MatrixError, match="moment_factor"):
        key_direction(first, torch.eye(3))
    with pytest.raises(MatrixError, match="residual"):
        rank_one_update(first * torch.nan, first, first)
