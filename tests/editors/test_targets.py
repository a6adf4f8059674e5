import pytest
import torch
from editing import (
    CONTEXTS,
    REQUESTS,
    assert_same,
    config,
    double_model,
    plain_targets,
    pmet_config,
)

from flwr_collabedit.editors.targets import optimize_targets
from flwr_collabedit.errors import ConfigurationError, NonFiniteOutputError

# Attention before the MLP, beside it, and beside it with a norm of its own, which is
# PMET's affair alone; so is whether a block lies below the edited ones.
MEMIT = [(config, family) for family in ("gpt2", "llama", "gptj")]
PMET = [(pmet_config, family) for family in ("gpt2", "llama", "gptj", "gpt_neox")]


@pytest.mark.parametrize(
    ("settings_of", "family", "layers"),
    [
        *((*editor, (0, 1)) for editor in MEMIT + PMET),
        *((*editor, (0,)) for editor in PMET),
    ],
)
def test_batched_targets_equal_the_published_way_one_at_a_time(
    settings_of, family: str, layers: tuple[int, ...]
):
    lm, settings = double_model(family), settings_of(layers=layers)

    found = optimize_targets(lm, REQUESTS, settings, CONTEXTS)

    assert_same(found, plain_targets(lm, settings))
    assert (found.z - found.initial).norm(dim=1).min() > 0.05  # not at the start


@pytest.mark.parametrize(("settings_of", "family"), MEMIT + PMET)
def test_clamped_targets_equal_the_published_way(settings_of, family: str):
    lm, settings = double_model(family), settings_of(clamp_norm_factor=0.05)

    found = optimize_targets(lm, REQUESTS, settings, CONTEXTS)

    assert_same(found, plain_targets(lm, settings))
    share = (found.z - found.initial).norm(dim=1) / found.initial.norm(dim=1)
    assert share.max() <= 0.05 + 1e-12
    assert (share > 0.05 - 1e-12).sum() >= 3  # those at the boundary


@pytest.mark.parametrize(
    ("settings_of", "family", "terms"),
    [
        *((*editor, {}) for editor in MEMIT),
        (pmet_config, "gpt2", {"kl_factor": 0.0625, "weight_decay": 0.0}),
    ],
)
def test_edits_that_finish_early_equal_the_published_way(
    settings_of, family: str, terms: dict[str, float]
):
    lm = double_model(family)
    four = settings_of(num_gradient_steps=4, **terms)
    losses = optimize_targets(lm, REQUESTS, four, CONTEXTS).loss
    # Not the very loss of a step, where rounding would decide.
    end = {"stop_loss": float(losses.median()) + 1e-3, "num_gradient_steps": 12}
    settings = settings_of(**end, **terms)

    found = optimize_targets(lm, REQUESTS, settings, CONTEXTS)

    assert_same(found, plain_targets(lm, settings))
    assert len(set(found.num_steps.tolist())) > 1  # some finished before others


@pytest.mark.parametrize("edits_per_batch", [1, 2, 5])
@pytest.mark.parametrize("settings_of", [config, pmet_config])
def test_a_target_does_not_depend_on_its_batch(settings_of, edits_per_batch: int):
    lm = double_model("llama")

    together = optimize_targets(lm, REQUESTS, settings_of(), CONTEXTS)
    apart = optimize_targets(
        lm, REQUESTS, settings_of(edits_per_batch=edits_per_batch), CONTEXTS
    )

    assert_same(apart, together, tolerance=1e-10)


def test_a_strong_decay_pulls_as_its_formula_says():
    # With the other terms off, d/d delta of w ||delta|| / ||h0||^2 is w / ||h0||^2 in
    # length: after the KL and likelihood terms the losses differ by exactly that.
    lm = double_model("gpt2")
    without = optimize_targets(lm, REQUESTS, config(weight_decay=0.0), CONTEXTS)
    one_step = config(weight_decay=0.0, num_gradient_steps=2)
    decayed = config(weight_decay=7.0, num_gradient_steps=2)

    # The first gradient is at delta = 0, where the decay's is zero: same first step.
    free, pulled = (
        optimize_targets(lm, REQUESTS, c, CONTEXTS) for c in (one_step, decayed)
    )

    torch.testing.assert_close(free.z, pulled.z)
    length = (free.z - free.initial).norm(dim=1)
    expected = free.loss + 7.0 * length / free.initial.norm(dim=1).square()
    torch.testing.assert_close(pulled.loss, expected)
    assert not torch.allclose(without.z, free.z)


def test_no_requests_give_no_targets():
    lm = double_model("gpt2")

    targets = optimize_targets(lm, (), config(), CONTEXTS)

    assert targets.z.shape == (0, lm.hidden_size)


def test_progress_counts_up_to_all_requests():
    counts: list[int] = []

    optimize_targets(
        double_model("gpt2"),
        REQUESTS,
        config(edits_per_batch=4),
        CONTEXTS,
        progress=counts.append,
    )

    assert counts == sorted(counts)
    assert counts[-1] == len(REQUESTS)


def test_a_loss_layer_below_the_last_block_is_refused():
    lm = double_model("gpt2")

    with pytest.raises(ConfigurationError, match="loss_layer"):
        optimize_targets(lm, REQUESTS, config(loss_layer=1), CONTEXTS)


def test_a_model_with_broken_weights_is_refused_by_case():
    lm = double_model("gpt2")
    next(iter(lm.model.parameters())).data.fill_(float("nan"))

    with pytest.raises(NonFiniteOutputError, match="case 0, 1, 2"):
        optimize_targets(lm, REQUESTS, config(), CONTEXTS)


def test_the_model_keeps_no_hook_and_no_bit_changes():
    lm = double_model("gptj")
    before = [weight.clone() for weight in lm.model.parameters()]

    optimize_targets(lm, REQUESTS, config(), CONTEXTS)

    assert all(map(torch.equal, before, lm.model.parameters()))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in lm.model.modules())
