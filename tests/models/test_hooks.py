from collections.abc import Callable

import pytest
import torch
from pico import FAMILIES, pico_language_model
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.models.hooks import bypassed, replace_output, trace
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.padding import pad_batch

LAYER = 1


def num_hooks(model: nn.Module) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks)
        for module in model.modules()
    )


def last_hidden(lm: LanguageModel, **inputs: object) -> Tensor:
    output: Tensor = lm.decoder(**inputs).last_hidden_state
    return output


def traced_block(lm: LanguageModel, **inputs: object) -> Tensor:
    name = lm.block_name(LAYER)
    with trace(lm.model, [name], stop=True) as outputs:
        lm.decoder(**inputs)
    return outputs[name]


def started_above(lm: LanguageModel, hidden: Tensor, **inputs: object) -> Tensor:
    """Return the final states of a forward that begins with ``hidden`` above LAYER."""
    with (
        bypassed(lm.blocks[: LAYER + 1], as_tuple=lm.block_returns_tuple),
        replace_output(lm.model, lm.block_name(LAYER), lambda _: hidden),
    ):
        return last_hidden(lm, **inputs)


def test_traced_outputs_are_the_hidden_states(
    lm: LanguageModel, input_ids: Tensor
) -> None:
    names = [lm.block_name(0), lm.block_name(1)]
    expected = lm.model(input_ids, output_hidden_states=True).hidden_states

    with trace(lm.model, names) as outputs:
        lm.model(input_ids)

    assert list(outputs) == names
    assert torch.equal(outputs[names[0]], expected[1])
    assert torch.equal(outputs[names[1]], expected[2])


def test_the_projection_maps_its_traced_input_to_its_traced_output(
    lm: LanguageModel, input_ids: Tensor
) -> None:
    name = lm.down_projection_name(LAYER)
    with trace(lm.model, [name], inputs=True) as keys:
        lm.model(input_ids)
    with trace(lm.model, [name]) as values:
        lm.model(input_ids)

    assert keys[name].shape == (2, 12, 64)
    assert torch.equal(lm.down_projection(LAYER)(keys[name]), values[name])


@pytest.mark.parametrize("inputs", [False, True])
def test_stopping_executes_no_later_module(
    lm: LanguageModel, input_ids: Tensor, inputs: bool
) -> None:
    names = [lm.down_projection_name(layer) for layer in (0, LAYER)]
    ran: list[str] = []
    before = num_hooks(lm.model)  # output_hidden_states leaves transformers' own

    with trace(lm.model, names, inputs=inputs, stop=True) as traced:
        watched = [*names, lm.block_name(LAYER), lm.block_name(2)]
        handles = [
            lm.model.get_submodule(name).register_forward_hook(
                lambda *_, name=name: ran.append(name)
            )
            for name in watched
        ]
        lm.model(input_ids)
        pytest.fail("the forward was not ended")
    for handle in handles:
        handle.remove()

    assert list(traced) == names
    # The hook that ends the forward comes before ours on the last module watched.
    assert ran == names[:1]
    assert num_hooks(lm.model) == before


@pytest.mark.parametrize("inputs", [False, True])
def test_the_last_projection_runs_only_when_its_output_is_wanted(inputs: bool) -> None:
    lm = pico_language_model("llama")
    ran: list[int] = []
    projection = lm.down_projection(LAYER)
    vars(projection)["forward"] = lambda key: ran.append(1) or key

    with trace(lm.model, [lm.down_projection_name(LAYER)], inputs=inputs, stop=True):
        lm.model(torch.zeros(1, 1, dtype=torch.long))

    assert len(ran) == (0 if inputs else 1)


def test_a_stop_ends_its_own_trace_only(input_ids: Tensor) -> None:
    lm = pico_language_model("gpt2")
    first, second = lm.block_name(0), lm.block_name(1)
    went_on = []

    with trace(lm.model, [second], stop=True) as outer:
        with trace(lm.model, [first], stop=True) as inner:
            lm.model(input_ids)
        went_on.append("after the inner stop")
        with trace(lm.model, [lm.block_name(2)], stop=True) as never:
            lm.model(input_ids)
        went_on.append("after the outer stop")

    assert went_on == ["after the inner stop"]
    assert (list(outer), list(inner), list(never)) == ([second], [first], [])
    assert num_hooks(lm.model) == 0


@pytest.mark.parametrize(
    "enter",
    [
        lambda lm: trace(lm.model, [lm.block_name(0)], inputs=True),
        lambda lm: trace(lm.model, [lm.block_name(0)], stop=True),
        lambda lm: replace_output(lm.model, lm.block_name(0), lambda hidden: hidden),
        lambda lm: bypassed(lm.blocks, as_tuple=True),
    ],
    ids=["trace inputs", "trace and stop", "replace_output", "bypassed"],
)
def test_nothing_is_left_behind_by_an_exception(enter: Callable[..., object]) -> None:
    lm = pico_language_model("gptj")

    def fail() -> None:
        with enter(lm):  # type: ignore[attr-defined]
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail()

    assert num_hooks(lm.model) == 0
    assert not any("forward" in vars(block) for block in lm.blocks)


def test_an_error_inside_the_forward_is_not_swallowed(input_ids: Tensor) -> None:
    lm = pico_language_model("gpt2")

    with (
        pytest.raises(IndexError),
        trace(lm.model, [lm.block_name(0)], stop=True),
    ):
        lm.model(input_ids + 10_000)

    assert num_hooks(lm.model) == 0


def test_an_unknown_module_is_refused_with_the_nearest() -> None:
    lm = pico_language_model("gpt2")

    with (
        pytest.raises(ConfigurationError, match=r"'transformer.h.7'.*h\.1"),
        trace(lm.model, [lm.block_name(0), "transformer.h.7"]),
    ):
        pytest.fail("the context was entered")

    assert num_hooks(lm.model) == 0


def test_replacing_the_last_blocks_output_reaches_the_final_norm(
    lm: LanguageModel, input_ids: Tensor
) -> None:
    hidden = torch.randn(2, 12, 32)
    expected = lm.model(input_ids, output_hidden_states=True)
    last = lm.block_name(lm.num_layers - 1)

    with replace_output(lm.model, last, lambda _: hidden):
        replaced = last_hidden(lm, input_ids=input_ids)
    with replace_output(lm.model, last, lambda same: same):
        unchanged = last_hidden(lm, input_ids=input_ids)

    norms = [m for n, m in lm.decoder.named_children() if "norm" in n or n == "ln_f"]
    torch.testing.assert_close(replaced, norms[0](hidden))
    assert torch.equal(unchanged, expected.hidden_states[-1])


@pytest.mark.parametrize("family", ["gpt2", "gptj"])
def test_gradients_flow_through_a_replaced_output(family: str) -> None:
    lm = pico_language_model(family, dtype=torch.float64)
    ids = torch.arange(5, 10)[None]
    delta = torch.zeros(32, dtype=torch.float64, requires_grad=True)
    last = lm.block_name(2)  # GPT-J's attention above it would round to float32

    def loss(shift: Tensor) -> Tensor:
        with replace_output(lm.model, last, lambda hidden: hidden + shift):
            return last_hidden(lm, input_ids=ids)[0, -1, 0]

    assert torch.autograd.gradcheck(loss, (delta,))


def test_bypassed_blocks_with_an_injected_output_equal_the_plain_forward(
    lm: LanguageModel,
) -> None:
    rows = [tuple(range(5, 17)), tuple(range(20, 28))]
    batch = vars(pad_batch(rows, lm.pad_token_id, side="left"))
    is_token = batch["attention_mask"].bool()
    expected = last_hidden(lm, **batch)

    final = started_above(lm, traced_block(lm, **batch), **batch)
    other = started_above(lm, torch.zeros(2, 12, 32), **batch)

    torch.testing.assert_close(final[is_token], expected[is_token])
    assert not torch.allclose(other[is_token], expected[is_token], atol=0.1)
    assert torch.equal(last_hidden(lm, **batch), expected)  # nothing is left bypassed


def test_bypassing_composes_with_a_cached_prefix(lm: LanguageModel) -> None:
    """Rows of 12 tokens, split after 5 and after 3, against the unsplit forward."""
    rows, cuts = [tuple(range(5, 17)), tuple(range(20, 32))], (5, 3)
    expected = last_hidden(lm, input_ids=torch.tensor(rows))
    prefix = pad_batch(
        [row[:cut] for row, cut in zip(rows, cuts, strict=True)], 0, side="left"
    )
    suffix = pad_batch([row[cut:] for row, cut in zip(rows, cuts, strict=True)], 0)

    def inputs() -> dict[str, object]:
        past = DynamicCache()
        lm.decoder(**vars(prefix), past_key_values=past, use_cache=True)
        return {
            "input_ids": suffix.input_ids,
            "position_ids": suffix.position_ids + torch.tensor(cuts)[:, None],
            "attention_mask": torch.cat(
                [prefix.attention_mask, suffix.attention_mask], dim=1
            ),
            "past_key_values": past,
            "use_cache": True,
        }

    hidden = traced_block(lm, **inputs())
    final = started_above(lm, hidden, **inputs())

    for row, cut in enumerate(cuts):
        torch.testing.assert_close(
            final[row, : 12 - cut], expected[row, cut:], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_bypassed_blocks_hand_on_the_embedding(family: str) -> None:
    lm = pico_language_model(family)
    ids = torch.arange(5, 10)[None]
    embedded = lm.model(ids, output_hidden_states=True).hidden_states[0]
    last = lm.block_name(2)

    with (
        bypassed(lm.blocks, as_tuple=lm.block_returns_tuple),
        trace(lm.model, [last]) as outputs,
    ):
        lm.model(ids)

    assert torch.equal(outputs[last], embedded)


def test_a_forward_that_someone_else_put_in_is_put_back() -> None:
    lm = pico_language_model("gpt2")
    own = vars(lm.blocks[0])
    own["forward"] = theirs = lm.blocks[0].forward

    with bypassed(lm.blocks, as_tuple=False):
        assert own["forward"] is not theirs

    assert own["forward"] is theirs
