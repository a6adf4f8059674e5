import pytest
import torch
from editing import CONTEXTS, REQUESTS, config, double_model
from torch import Tensor

from benchmarks.plain_memit import plain_memit, plain_target
from flwr_collabedit.algebra import priors
from flwr_collabedit.editors import layer_passes, memit
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.covariance import estimate_second_moments
from flwr_collabedit.editors.editor import ModelEdit
from flwr_collabedit.editors.keys import current_values
from flwr_collabedit.editors.layer_passes import measure
from flwr_collabedit.editors.memit import MemitEditor, apply
from flwr_collabedit.errors import ConfigurationError, SecondMomentError
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import applied_deltas, read_weight

TEXTS = tuple(
    f"{word} {subject} is {word}"
    for word in ("The", "town", "in", "piano", "old", "English")
    for subject in ("Paris", "Rome", "Ada", "Miles Davis", "Byron")
)


def second_moments(lm: LanguageModel, settings: MemitConfig) -> dict[str, Tensor]:
    """C0 from little text; the small multiple of the identity makes it invertible."""
    moments = estimate_second_moments(
        lm, settings.layers, TEXTS, num_samples=len(TEXTS), corpus_name="towns"
    )
    return {
        name: moment + 0.01 * moment.trace() * torch.eye(len(moment)) / len(moment)
        for name, moment in moments.items()
    }


def editor(lm: LanguageModel, settings: MemitConfig) -> MemitEditor:
    return MemitEditor(lm, settings, CONTEXTS, second_moments(lm, settings))


# GPT-J computes attention in float32 whatever the model's type.
@pytest.mark.parametrize(
    ("family", "tolerance"), [("gpt2", 1e-9), ("llama", 1e-9), ("gptj", 1e-6)]
)
def test_memit_equals_the_algorithm_written_out_plainly(family: str, tolerance: float):
    lm, settings = double_model(family), config()
    moments = second_moments(lm, settings)
    expected = plain_memit(lm, REQUESTS, settings, CONTEXTS, moments)

    found = MemitEditor(lm, settings, CONTEXTS, moments).edit(REQUESTS).deltas

    assert found.keys() == expected.keys()
    for name, delta in expected.items():
        assert delta.norm() > 1e-3
        assert (found[name] - delta).norm() < tolerance * delta.norm()


def test_the_frozen_schedule_measures_every_layer_on_the_unedited_model():
    lm, settings = double_model("llama"), config()
    moments = second_moments(lm, settings)
    z = torch.stack([plain_target(lm, r, settings, CONTEXTS).z for r in REQUESTS])
    keys, residuals = measure(lm, (0, 1), REQUESTS, z, CONTEXTS, settings)

    found = MemitEditor(lm, settings, CONTEXTS, moments).edit(
        REQUESTS, layer_schedule="frozen", residual_split="uniform"
    )

    for layer in (0, 1):
        name = lm.weight_name(layer)
        system = 5.0 * moments[name] + keys[layer] @ keys[layer].T
        expected = residuals / 2 @ keys[layer].T @ torch.linalg.inv(system)
        torch.testing.assert_close(found.deltas[name], expected, rtol=1e-7, atol=1e-9)


def test_frozen_with_remaining_shares_writes_the_last_layers_residual_whole():
    lm, settings = double_model("gpt2"), config()
    uniform, remaining = (
        editor(lm, settings).edit(
            REQUESTS, layer_schedule="frozen", residual_split=split
        )
        for split in ("uniform", "remaining")
    )

    first, last = (lm.weight_name(layer) for layer in (0, 1))
    torch.testing.assert_close(remaining.deltas[first], uniform.deltas[first])
    torch.testing.assert_close(remaining.deltas[last], 2 * uniform.deltas[last])


def test_an_edit_brings_the_values_nearer_to_their_targets():
    lm, settings = double_model("gpt2"), config(second_moment_weight=1e-3)
    result = editor(lm, settings).edit(REQUESTS)

    with applied_deltas(lm, result.deltas):
        current = current_values(lm, REQUESTS, settings)
    after = (result.targets.z - current).norm(dim=1)

    torch.testing.assert_close(result.residual_norms_after, after)
    assert result.residual_norms_after.sum() < 0.5 * result.residual_norms_before.sum()
    assert {"targets", "measure", "solve"} <= result.seconds.keys()


def test_a_second_round_adds_its_update_to_the_delta_it_starts_from():
    lm, settings = double_model("gpt2"), config()
    moments = second_moments(lm, settings)
    first = MemitEditor(lm, settings, CONTEXTS, moments).edit(REQUESTS[:3])

    both = MemitEditor(lm, settings, CONTEXTS, moments).edit(REQUESTS[3:], start=first)
    apply(lm, first)
    second = MemitEditor(lm, settings, CONTEXTS, moments).edit(REQUESTS[3:])

    for name, delta in both.deltas.items():
        torch.testing.assert_close(delta, first.deltas[name] + second.deltas[name])


def test_no_requests_change_nothing():
    lm, settings = double_model("gpt2"), config()
    first = editor(lm, settings).edit(REQUESTS[:2]).deltas

    none = editor(lm, settings).edit(()).deltas
    again = editor(lm, settings).edit((), start=ModelEdit(first)).deltas

    assert all(not delta.any() for delta in none.values())
    assert all(torch.equal(again[name], first[name]) for name in first)


def test_applying_a_result_writes_it_into_the_weights():
    lm, settings = double_model("gpt2"), config()
    result = editor(lm, settings).edit(REQUESTS)
    before = {name: read_weight(lm.model, name).clone() for name in result.deltas}

    apply(lm, result)

    for name, delta in result.deltas.items():
        torch.testing.assert_close(read_weight(lm.model, name), before[name] + delta)


@pytest.mark.parametrize("schedule", ["synchronous", "frozen"])
def test_an_edit_leaves_the_model_bit_identical(schedule: str):
    lm, settings = double_model("gptj"), config()
    before = [weight.clone() for weight in lm.model.parameters()]

    editor(lm, settings).edit(REQUESTS, layer_schedule=schedule)

    assert_untouched(lm, before)


@pytest.mark.parametrize("step", ["optimize_targets", "collect_keys", "solve_update"])
def test_an_error_half_way_leaves_the_model_bit_identical(
    step: str, monkeypatch: pytest.MonkeyPatch
):
    lm, settings = double_model("gpt2"), config()
    started = editor(lm, settings).edit(REQUESTS[:2]).deltas
    before = [weight.clone() for weight in lm.model.parameters()]
    modules = {"optimize_targets": memit, "solve_update": priors}
    module = modules.get(step, layer_passes)
    working, calls = getattr(module, step), []

    def failing(*args: object, **kwargs: object) -> object:
        calls.append(step)
        if len(calls) == (1 if step == "optimize_targets" else 2):
            raise RuntimeError("injected")
        return working(*args, **kwargs)

    subject = editor(lm, settings)
    monkeypatch.setattr(module, step, failing)
    with pytest.raises(RuntimeError, match="injected"):
        subject.edit(REQUESTS, start=ModelEdit(started))

    assert_untouched(lm, before)


def test_an_error_inside_the_forward_leaves_no_hook_behind(
    monkeypatch: pytest.MonkeyPatch,
):
    lm, settings = double_model("gpt2"), config()
    before = [weight.clone() for weight in lm.model.parameters()]
    subject = editor(lm, settings)
    monkeypatch.setattr(type(lm), "logits", lambda *_: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        subject.edit(REQUESTS)

    assert_untouched(lm, before)


def test_second_moments_of_another_model_are_refused_before_anything_runs():
    lm, settings = double_model("gpt2"), config()
    moments = second_moments(lm, settings)
    first, name = lm.weight_name(0), lm.weight_name(1)

    with pytest.raises(SecondMomentError, match=name.replace(".", r"\.")):
        MemitEditor(lm, settings, CONTEXTS, {**moments, name: torch.eye(3)})
    with pytest.raises(SecondMomentError, match="Estimate it"):
        MemitEditor(lm, settings, CONTEXTS, {first: moments[first]})
    with pytest.raises(SecondMomentError, match="NaN"):
        MemitEditor(
            lm, settings, CONTEXTS, {**moments, name: moments[name] * torch.nan}
        )


def test_layers_that_the_model_does_not_have_are_refused():
    lm = double_model("gpt2")

    with pytest.raises(ConfigurationError):
        MemitEditor(lm, config(layers=(1, 9)), CONTEXTS, {})


def assert_untouched(lm: LanguageModel, before: list[Tensor]) -> None:
    assert all(map(torch.equal, before, lm.model.parameters()))
    for module in lm.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "forward" not in vars(module)
