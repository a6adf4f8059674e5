from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from pico import pico_language_model

from flwr_collabedit.errors import ConfigurationError, UnsupportedArchitectureError
from flwr_collabedit.models.hooks import trace
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import (
    applied_deltas,
    read_weight,
    restored_weights,
    weight_shapes,
    write_delta,
)

NAME = "transformer.h.1.mlp.c_proj.weight"


def bits(lm: LanguageModel) -> dict[str, bytes]:
    state = lm.model.state_dict()
    return {
        name: value.contiguous().view(torch.uint8).numpy().tobytes()
        for name, value in state.items()
    }


def run_projection(lm: LanguageModel, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what enters and what leaves a down projection, without its bias."""
    name = lm.down_projection_name(layer)
    ids = torch.arange(5, 15)[None]
    with trace(lm.model, [name], inputs=True) as keys:
        lm.model(ids)
    with trace(lm.model, [name]) as values:
        lm.model(ids)
    bias = dict(lm.down_projection(layer).named_parameters()).get("bias", 0)
    return keys[name], values[name] - bias


def check_orientation(lm: LanguageModel, d_key: int) -> None:
    key, value = run_projection(lm, 1)

    weight = read_weight(lm.model, lm.weight_name(1))

    assert weight.shape == (32, d_key)
    torch.testing.assert_close(key @ weight.T, value)


def test_a_layer_is_its_weight_times_the_key(lm: LanguageModel) -> None:
    check_orientation(lm, 64)


@pytest.mark.parametrize(
    ("family", "width"), [("gpt2", "n_inner"), ("llama", "intermediate_size")]
)
def test_a_square_weight_is_oriented_by_its_module(family: str, width: str) -> None:
    check_orientation(pico_language_model(family, **{width: 32}), 32)


@pytest.mark.parametrize(
    ("family", "width"), [("gpt2", "n_inner"), ("llama", "intermediate_size")]
)
@pytest.mark.parametrize("d_key", [32, 64])
def test_an_applied_delta_adds_delta_times_key(
    family: str, width: str, d_key: int
) -> None:
    lm = pico_language_model(family, **{width: d_key})
    delta = torch.randn(32, d_key, dtype=torch.float64)
    key, value = run_projection(lm, 1)

    with applied_deltas(lm, {lm.weight_name(1): delta}):
        key_after, value_after = run_projection(lm, 1)

    assert torch.equal(key_after, key)
    torch.testing.assert_close(value_after, value + key @ delta.float().T)


def test_shapes_come_in_the_order_of_the_layers(lm: LanguageModel) -> None:
    shapes = weight_shapes(lm, [0, 2])

    assert list(shapes.items()) == [
        (lm.weight_name(0), (32, 64)),
        (lm.weight_name(2), (32, 64)),
    ]


def test_sums_are_formed_in_float64_before_rounding() -> None:
    lm = pico_language_model("gpt2")
    lm.model.get_parameter(NAME).fill_(1.0)
    # In float32 the second term is lost and 1 + 2**-24 is a tie that falls to 1.
    delta = torch.full((32, 64), 2.0**-24 + 2.0**-50, dtype=torch.float64)

    with applied_deltas(lm, {NAME: delta}):
        weight = read_weight(lm.model, NAME)

    assert weight.unique().tolist() == [1 + 2.0**-23]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_weights_get_their_bits_back(dtype: torch.dtype) -> None:
    lm = pico_language_model("gpt2", dtype=dtype)
    lm.model.get_parameter(NAME)[0, 0] = -0.0
    before, place = bits(lm), lm.model.get_parameter(NAME).data_ptr()
    delta = torch.rand(32, 64, dtype=torch.float64)

    with applied_deltas(lm, {NAME: delta, lm.weight_name(2): delta}):
        changed = {name for name, value in bits(lm).items() if value != before[name]}
        assert lm.dtype == dtype

    assert changed == {NAME, lm.weight_name(2)}
    assert bits(lm) == before
    assert lm.model.get_parameter(NAME).data_ptr() == place


@pytest.mark.parametrize("enter", [applied_deltas, restored_weights])
def test_weights_get_their_bits_back_after_an_exception(
    enter: Callable[..., AbstractContextManager[None]],
) -> None:
    lm = pico_language_model("llama")
    name = lm.weight_name(1)
    before = bits(lm)

    def fail() -> None:
        with enter(lm, {name: torch.ones(32, 64)}):
            lm.model.get_parameter(name).mul_(2)
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail()

    assert bits(lm) == before


def test_nested_deltas_add_up() -> None:
    lm = pico_language_model("gpt2")
    base = read_weight(lm.model, NAME)
    one = torch.full((32, 64), 0.5)

    with applied_deltas(lm, {NAME: one}):
        with applied_deltas(lm, {NAME: one}):
            torch.testing.assert_close(read_weight(lm.model, NAME), base + 1)
        torch.testing.assert_close(read_weight(lm.model, NAME), base + 0.5)


@pytest.mark.parametrize(
    ("name", "delta", "message"),
    [
        ("transformer.h.9.mlp.c_proj.weight", torch.zeros(32, 64), r"h\.9.*Known"),
        ("transformer.h.1.mlp.c_proj", torch.zeros(32, 64), r"ending in '\.weight'"),
        (NAME, torch.zeros(64, 32), r"\(32, 64\).*found \(64, 32\)"),
        (NAME, torch.full((32, 64), torch.nan), "finite.*and 2043 more"),
    ],
    ids=["unknown layer", "no weight", "transposed", "not finite"],
)
def test_a_wrong_delta_is_refused_before_anything_is_written(
    name: str, delta: torch.Tensor, message: str
) -> None:
    lm = pico_language_model("gpt2")
    before = bits(lm)
    deltas = {lm.weight_name(0): torch.ones(32, 64), name: delta}

    with (
        pytest.raises(ConfigurationError, match=message),
        applied_deltas(lm, deltas),
    ):
        pytest.fail("the context was entered")
    with pytest.raises(ConfigurationError, match=message):
        write_delta(lm, name, delta)

    assert bits(lm) == before


def test_a_written_delta_stays() -> None:
    lm = pico_language_model("gpt2")
    base = read_weight(lm.model, NAME)
    delta = torch.randn(32, 64)

    write_delta(lm, NAME, delta)

    torch.testing.assert_close(read_weight(lm.model, NAME), base + delta)


def test_a_read_weight_is_a_copy() -> None:
    lm = pico_language_model("gpt2")
    before = bits(lm)

    read_weight(lm.model, NAME).zero_()

    assert bits(lm) == before


def test_other_kinds_of_module_are_refused() -> None:
    lm = pico_language_model("gpt2")

    with pytest.raises(UnsupportedArchitectureError, match=r"found .*Embedding"):
        read_weight(lm.model, "transformer.wte.weight")
