"""The relative residual is 1 before an edit, 0 after it, and linear in between."""

import pytest
import torch
from editing import CONTEXTS, REQUESTS, config, double_model
from torch import Tensor

from flwr_collabedit.editors.keys import current_values
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.editors.pmet_config import PmetConfig
from flwr_collabedit.editors.residuals import clamp_fractions, relative_residuals
from flwr_collabedit.editors.targets import Targets, optimize_targets
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import applied_deltas, weight_shapes

COUNT = len(REQUESTS)


def targets_with(z: Tensor, initial: Tensor) -> Targets:
    return Targets(z, initial, torch.zeros(len(z)), torch.zeros(len(z)))


def nearly_no_memory(lm: LanguageModel) -> dict[str, Tensor]:
    """Second moments so small that an edit is written nearly in full."""
    shapes = weight_shapes(lm, (0, 1))
    return {
        name: 1e-6 * torch.eye(d_key, dtype=torch.float64)
        for name, (_, d_key) in shapes.items()
    }


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("written", [0.0, 0.25, 1.0, 1.5])
def test_what_is_left_of_the_way_is_the_residual(family: str, written: float):
    lm = double_model(family)
    current = current_values(lm, REQUESTS, config())
    way = torch.randn(current.shape, dtype=torch.float64)
    targets = targets_with(current + (1 - written) * way, current - written * way)

    found = relative_residuals(lm, REQUESTS, targets, config(), rows_per_batch=2)

    expected = torch.full((COUNT,), abs(1 - written), dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_a_residual_across_the_way_counts_too():
    lm = double_model("gpt2")
    current = current_values(lm, REQUESTS, config())
    way, across = torch.zeros_like(current), torch.zeros_like(current)
    way[:, 0], across[:, 1] = 4.0, 3.0
    # Off the line from h0 to z, three quarters of its length beside z.
    targets = targets_with(current - across, current - across - way)

    found = relative_residuals(lm, REQUESTS, targets, config())

    torch.testing.assert_close(found, torch.full((COUNT,), 0.75, dtype=torch.float64))


@pytest.mark.parametrize("settings", [config(), None], ids=["memit", "pmet"])
def test_written_edits_are_present_and_others_are_not(settings):
    lm = double_model("gpt2")
    if settings is None:
        settings = PmetConfig(
            layers=(0, 1), num_gradient_steps=6, stop_loss=0.0, second_moment_weight=5
        )
    targets = optimize_targets(lm, REQUESTS, settings, CONTEXTS)
    editor = MemitEditor(lm, settings, CONTEXTS, nearly_no_memory(lm))
    # Keys are measured in contexts and residuals without, so that something is left.
    passes = editor.write(REQUESTS[:2], targets.z[:2])

    before = relative_residuals(lm, REQUESTS, targets, settings)
    with applied_deltas(lm, passes.deltas):
        after = relative_residuals(lm, REQUESTS, targets, settings)

    torch.testing.assert_close(before, torch.ones(COUNT, dtype=torch.float64))
    assert after[:2].max() < 0.5
    assert after[2:].min() > 0.8


def test_an_edit_that_asks_for_nothing_is_present_until_it_is_lost():
    lm = double_model("gpt2")
    current = current_values(lm, REQUESTS, config())
    rounding = 1e-6 * current.norm(dim=1, keepdim=True) * torch.eye(*current.shape)
    nothing = targets_with(current + rounding, current + rounding)
    lost = targets_with(2 * current, 2 * current)

    assert relative_residuals(lm, REQUESTS, nothing, config()).max() < 0.01
    # The value is half of what it was: half its norm, over a thousandth of it.
    torch.testing.assert_close(
        relative_residuals(lm, REQUESTS, lost, config()),
        torch.full((COUNT,), 500.0, dtype=torch.float64),
    )


def test_a_target_at_its_clamp_has_moved_all_the_way_that_it_may():
    initial = torch.tensor([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]])
    moved = torch.tensor([[0.0, 2.5], [1.0, 0.0], [0.0, 0.0]])

    found = clamp_fractions(
        targets_with(initial + moved, initial), config(clamp_norm_factor=0.5)
    )

    assert found.tolist() == [1.0, 1.0, 0.0]
    assert found.dtype == torch.float64


def test_optimised_targets_stay_within_their_clamp():
    lm, settings = double_model("gpt2"), config(clamp_norm_factor=0.1)
    targets = optimize_targets(lm, REQUESTS, settings, CONTEXTS)

    found = clamp_fractions(targets, settings)

    assert found.max() <= 1 + 1e-9
    assert found.min() > 0


def test_no_requests_have_no_residuals():
    lm = double_model("gpt2")
    targets = optimize_targets(lm, (), config(), CONTEXTS)

    assert relative_residuals(lm, (), targets, config()).shape == (0,)
    assert clamp_fractions(targets, config()).shape == (0,)
