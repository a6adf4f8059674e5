"""Proximal sweeps of one party: what is repeated, what is minimised, when it stops."""

import pytest
import torch
from editing import CONTEXTS, REQUESTS, config, double_model
from test_memit import editor, second_moments

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.least_squares import solve_update
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.layer_passes import measure
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.models.weights import applied_deltas

FEW = REQUESTS[:3]


def test_one_sweep_is_canonical_memit_bit_for_bit():
    lm, settings = double_model("gpt2"), config()
    moments = second_moments(lm, settings)
    result = MemitEditor(lm, settings, CONTEXTS, moments).edit(FEW, sweeps=1)

    deltas = {name: torch.zeros_like(d) for name, d in result.deltas.items()}
    for layer, layers_left in ((0, 2), (1, 1)):
        with applied_deltas(lm, deltas):
            keys, residuals = measure(
                lm, [layer], FEW, result.targets.z, CONTEXTS, settings
            )
        name = lm.weight_name(layer)
        statistics = EditStatistics.from_pairs(keys[layer], 1 / layers_left * residuals)
        prior = moments[name] * settings.second_moment_weight
        deltas[name] = deltas[name] + solve_update(statistics, prior)

    assert all(torch.equal(deltas[name], d) for name, d in result.deltas.items())
    torch.testing.assert_close(
        result.sweep_residual_norms, [float(result.residual_norms_before.norm())]
    )


def single_layer_editor() -> MemitEditor:
    """Without contexts, so that the keys are those at which residuals are measured."""
    lm, settings = double_model("gpt2"), config(layers=(1,))
    moments = second_moments(lm, settings)
    return MemitEditor(lm, settings, ContextTemplates(), moments)


def test_a_second_sweep_over_a_single_layer_stays_at_the_minimum():
    subject = single_layer_editor()

    once, twice = (subject.edit(FEW, sweeps=sweeps) for sweeps in (1, 2))

    (delta,) = once.deltas.values()
    (again,) = twice.deltas.values()
    assert (again - delta).norm() < 1e-9 * delta.norm()
    # Not since nothing was left to write: a step without the proximal term would move.
    assert twice.sweep_residual_norms[1] > 0.01 * twice.sweep_residual_norms[0]


@pytest.mark.parametrize(
    ("schedule", "split"), [("synchronous", None), ("frozen", "uniform")]
)
def test_no_step_increases_the_objective_of_the_layer_that_it_solves(schedule, split):
    lm, settings = double_model("llama"), config(second_moment_weight=0.5)
    moments = second_moments(lm, settings)
    subject = MemitEditor(lm, settings, CONTEXTS, moments)
    z = subject.edit(FEW).targets.z
    name, prior = lm.weight_name(0), 0.5 * moments[lm.weight_name(0)]

    def options(sweeps):
        return {"layer_schedule": schedule, "residual_split": split, "sweeps": sweeps}

    for sweeps in (1, 2):
        before = subject.edit(FEW, **options(sweeps)).deltas
        after = subject.edit(FEW, **options(sweeps + 1)).deltas
        with applied_deltas(lm, before):
            keys, residuals = measure(lm, [0], FEW, z, CONTEXTS, settings)
        step = after[name] - before[name]

        def objective(d, keys=keys[0], wanted=residuals / 2, delta=before[name]):
            total = delta + d
            return (d @ keys - wanted).square().sum() + (total @ prior * total).sum()

        least = objective(step)
        assert least < objective(torch.zeros_like(step))
        assert least < objective(0.9 * step)
        assert least < objective(1.1 * step)


def test_sweeps_leave_less_of_the_residual_and_say_so():
    lm, settings = double_model("gpt2"), config(second_moment_weight=0.5)

    once, often = (editor(lm, settings).edit(FEW, sweeps=n) for n in (1, 4))

    assert often.residual_norms_after.norm() < 0.99 * once.residual_norms_after.norm()
    assert often.sweep_residual_norms[1] == pytest.approx(
        float(once.residual_norms_after.norm())
    )


def test_the_stopping_rule_ends_the_sweeps():
    # The second sweep starts where it ends, so the third starts unchanged: the last.
    result = single_layer_editor().edit(FEW, sweeps=9, sweep_tolerance=1e-6)

    assert len(result.sweep_residual_norms) == 3


def test_sweeps_of_shares_above_one_are_refused():
    with pytest.raises(ConfigurationError, match="diverge"):
        editor(double_model("gpt2"), config()).edit(
            FEW, layer_schedule="frozen", residual_split="remaining", sweeps=2
        )
