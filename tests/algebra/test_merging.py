"""The baselines' merge rules: hand-computed values, an oracle and what they share."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.utils.merge_utils import ties as peft_ties

from flwr_collabedit.algebra.merging import (
    WeightedSum,
    edit_average,
    simple_average,
    task_arithmetic,
    ties,
)
from flwr_collabedit.errors import ConfigurationError, MatrixError

A = torch.tensor([[4.0, -1.0, 0.5, 0.1], [0.0, 3.0, -2.0, 0.2]], dtype=torch.float64)
B = torch.tensor([[-2.0, -3.0, 0.1, 0.0], [5.0, -4.0, 0.3, 0.4]], dtype=torch.float64)

RULES = {
    "edit average": lambda deltas, order: edit_average(
        deltas, [[5, 0, 2, 7][i] for i in order]
    ),
    "simple average": lambda deltas, order: simple_average(deltas),
    "task arithmetic": lambda deltas, order: task_arithmetic(deltas, 0.7),
    "ties": lambda deltas, order: ties(deltas, 0.3, 0.9),
}


def drawn(count: int, seed: int = 0, shape: tuple[int, int] = (6, 10)):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for _ in range(count)
    ]


def test_edit_average_weighs_by_the_share_of_the_edits():
    # (1 * A + 3 * B) / 4
    expected = [[-0.5, -2.5, 0.2, 0.025], [3.75, -2.25, -0.275, 0.35]]

    torch.testing.assert_close(
        edit_average([A, B], [1, 3]), torch.tensor(expected, dtype=torch.float64)
    )


def test_simple_average_divides_by_the_number_of_clients():
    expected = [[1.0, -2.0, 0.3, 0.05], [2.5, -0.5, -0.85, 0.3]]

    torch.testing.assert_close(
        simple_average([A, B]), torch.tensor(expected, dtype=torch.float64)
    )


def test_task_arithmetic_scales_the_sum():
    expected = [[1.0, -2.0, 0.3, 0.05], [2.5, -0.5, -0.85, 0.3]]

    torch.testing.assert_close(
        task_arithmetic([A, B], 0.5), torch.tensor(expected, dtype=torch.float64)
    )
    torch.testing.assert_close(task_arithmetic([A, B]), A + B)


def test_ties_keeps_the_largest_elects_a_sign_and_averages_who_agrees():
    # Kept, 4 of 8:   A  4 -1  .  .    B -2 -3  .  .
    #                    .  3 -2  .       5 -4  .  .
    # Sums:              2 -4  .  .       5 -1 -2  .
    expected = [[4.0, -2.0, 0.0, 0.0], [5.0, -4.0, -2.0, 0.0]]

    torch.testing.assert_close(
        ties([A, B], density=0.5), torch.tensor(expected, dtype=torch.float64)
    )
    torch.testing.assert_close(
        ties([A, B], density=0.5, scale=0.4),
        0.4 * torch.tensor(expected, dtype=torch.float64),
    )


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 5),
    density=st.sampled_from([0.1, 0.2, 0.5, 0.9]),
    scale=st.sampled_from([0.4, 1.0, 2.0]),
    seed=st.integers(0, 1000),
)
def test_ties_equals_the_one_of_peft(count, density, scale, seed):
    deltas = drawn(count, seed)

    oracle = peft_ties(deltas, torch.full((count,), scale).double(), density)

    torch.testing.assert_close(ties(deltas, density, scale), oracle)


def test_task_arithmetic_by_one_over_n_is_the_simple_average():
    deltas = drawn(4)

    torch.testing.assert_close(task_arithmetic(deltas, 1 / 4), simple_average(deltas))


def test_equal_numbers_of_edits_make_edit_average_the_simple_average():
    deltas = drawn(3)

    torch.testing.assert_close(
        edit_average(deltas, [6, 6, 6]), simple_average(deltas), rtol=1e-14, atol=0
    )


def test_ties_of_everything_with_equal_signs_is_the_mean():
    sign = drawn(1, 9)[0].sign()
    deltas = [delta.abs() * sign for delta in drawn(3)]

    torch.testing.assert_close(ties(deltas, density=1.0), simple_average(deltas))


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(4)))
def test_the_order_of_the_clients_changes_nothing(rule, order):
    deltas = drawn(4)

    found = RULES[rule]([deltas[i] for i in order], order)

    torch.testing.assert_close(
        found, RULES[rule](deltas, range(4)), rtol=1e-13, atol=1e-14
    )


@pytest.mark.parametrize("rule", RULES)
def test_rules_leave_the_deltas_as_they_were(rule):
    deltas = drawn(4)

    RULES[rule](deltas, range(4))

    assert all(map(torch.equal, deltas, drawn(4)))


def test_no_edits_at_all_average_to_nothing():
    assert torch.equal(edit_average([0 * A, 0 * B], [0, 0]), 0 * A)


def test_a_delta_of_another_shape_is_refused():
    total = WeightedSum(2, 4)

    with pytest.raises(MatrixError, match=r"shape \(2, 4\), found \(4, 2\)"):
        total.add(A.T)


def test_merging_no_clients_is_refused():
    for rule in (simple_average, task_arithmetic, ties):
        with pytest.raises(MatrixError, match="at least one client"):
            rule([])


@pytest.mark.parametrize("density", [0.0, -0.1, 1.5])
def test_a_density_that_is_no_share_is_refused(density):
    with pytest.raises(ConfigurationError, match="density above 0 and at most 1"):
        ties([A, B], density)
