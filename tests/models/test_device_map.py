"""Models with weights that are not in memory between calls."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from pico import pico_language_model
from transformers import AutoModelForCausalLM

from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.models import device_map, loading
from flwr_collabedit.models.device_map import make_resident
from flwr_collabedit.models.fingerprint import fingerprint
from flwr_collabedit.models.hooks import trace
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.loading import load_language_model
from flwr_collabedit.models.weights import (
    applied_deltas,
    read_weight,
    weight_shapes,
    write_delta,
)

CPU = torch.device("cpu")


def on_disk(lm: LanguageModel, folder: Path) -> LanguageModel:
    """Leave the embeddings and the head in memory, and nothing else."""
    body = lm.model.base_model_prefix
    placed: dict[str, Any] = {
        name: "cpu" for name, _ in lm.model.named_children() if name != body
    }
    for name, child in lm.decoder.named_children():
        if child is lm.blocks:
            placed |= {lm.block_name(layer): "disk" for layer in range(len(lm.blocks))}
        else:
            placed[f"{body}.{name}"] = "cpu"
    dispatch_model(
        lm.model,
        placed,
        offload_dir=folder,
        skip_keys=lm.model._skip_keys_device_placement,
    )
    return lm


@pytest.fixture(params=["gpt2", "gptj", "llama"])
def pair(
    request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[LanguageModel, LanguageModel]:
    """A model in memory and the same one on disk."""
    lm = pico_language_model(request.param)
    return lm, on_disk(pico_language_model(request.param), tmp_path)


IDS = torch.arange(5, 15)[None]


def test_a_model_on_disk_says_where_it_computes(
    pair: tuple[LanguageModel, LanguageModel],
) -> None:
    plain, lm = pair

    assert lm.down_projection(1).weight.is_meta
    assert lm.device == CPU
    assert lm.dtype == torch.float32
    assert weight_shapes(lm, [0, 1]) == weight_shapes(plain, [0, 1])
    assert lm.down_projection(1).weight.is_meta, "asking for a shape loads nothing"
    assert torch.equal(lm.model(IDS).logits, plain.model(IDS).logits)


def test_an_edited_layer_stays_in_memory_and_is_restored(
    pair: tuple[LanguageModel, LanguageModel],
) -> None:
    plain, lm = pair
    name = lm.weight_name(1)
    delta = {name: torch.randn(32, 64, dtype=torch.float64)}
    before = plain.model(IDS).logits

    with applied_deltas(plain, delta):
        expected = plain.model(IDS).logits
    with applied_deltas(lm, delta):
        for _ in range(2):  # a weight that is lent would be lost by the second
            assert torch.equal(lm.model(IDS).logits, expected)

    assert not torch.equal(expected, before)
    assert torch.equal(lm.model(IDS).logits, before)
    assert not lm.down_projection(1).weight.is_meta
    assert lm.down_projection(0).weight.is_meta


def test_a_weight_on_disk_is_read_and_written_for_good(
    pair: tuple[LanguageModel, LanguageModel],
) -> None:
    plain, lm = pair
    name = lm.weight_name(0)

    assert torch.equal(read_weight(lm.model, name), read_weight(plain.model, name))
    for one in pair:
        write_delta(one, name, torch.ones(32, 64))

    assert torch.equal(lm.model(IDS).logits, plain.model(IDS).logits)
    assert fingerprint(lm, [0, 1]) == fingerprint(plain, [0, 1])


def test_a_forward_that_is_ended_leaves_no_weight_behind(
    pair: tuple[LanguageModel, LanguageModel],
) -> None:
    _, lm = pair
    for inputs in (True, False):
        with trace(lm.model, [lm.down_projection_name(1)], inputs=inputs, stop=True):
            lm.model(IDS)

    assert all(one.is_meta for one in lm.blocks.parameters())


def test_weights_that_are_nowhere_are_refused() -> None:
    source = pico_language_model("llama")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(source.model.config)
    lm = LanguageModel.from_parts("empty", model, source.tokenizer)

    with pytest.raises(ConfigurationError, match=r"layers\.1\.mlp.*meta device"):
        read_weight(lm.model, lm.weight_name(1))


def test_a_weight_in_memory_stays_as_it_is() -> None:
    lm = pico_language_model("llama")
    module = lm.down_projection(1)
    place = module.weight.data_ptr()

    make_resident(module, "it")

    assert module.weight.data_ptr() == place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lm = pico_language_model("llama")
    lm.model.save_pretrained(tmp_path / "model")
    lm.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_balanced_without_an_accelerator_is_the_cpu(folder: Path) -> None:
    lm = load_language_model(str(folder), device="balanced", dtype="bfloat16")

    assert lm.device == CPU
    assert lm.dtype == torch.bfloat16
    assert {one.device for one in lm.model.parameters()} == {CPU}


def test_what_has_no_room_is_read_from_the_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load_language_model(str(folder))
    room = {"cpu": 3 * sum(one.nbytes for one in plain.blocks[0].parameters())}

    def cramped() -> dict[str, Any]:
        return {**device_map.balanced_map(), "max_memory": room}

    monkeypatch.setattr(loading, "balanced_map", cramped)
    lm = load_language_model(str(folder), device="balanced")

    assert "disk" in lm.model.hf_device_map.values()
    assert lm.down_projection(2).weight.is_meta
    assert torch.equal(lm.model(IDS).logits, plain.model(IDS).logits)
    assert lm.device == CPU
    assert fingerprint(lm, [0, 1, 2]) == fingerprint(plain, [0, 1, 2])


def test_balanced_needs_accelerate(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_map, "find_spec", lambda name: None)

    with pytest.raises(ImportError, match=r"flwr-collabedit\[offload\]"):
        load_language_model(str(folder), device="balanced")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_half_of_a_model_on_a_gpu_is_the_model(tmp_path: Path) -> None:
    plain = pico_language_model("llama")
    lm = pico_language_model("llama")
    names = [name for name, _ in lm.decoder.named_children() if name != "layers"]
    placed: dict[str, Any] = {f"model.{name}": 0 for name in names}
    placed |= {"model.layers.0": 0, "model.layers.1": 0, "model.layers.2": "cpu"}
    dispatch_model(lm.model, {**placed, "lm_head": 0}, skip_keys="past_key_values")

    assert lm.device == torch.device("cuda:0")
    ids = IDS.to(lm.device)
    torch.testing.assert_close(lm.model(ids).logits.cpu(), plain.model(IDS).logits)
    delta = {lm.weight_name(2): torch.randn(32, 64)}
    with applied_deltas(lm, delta), applied_deltas(plain, delta):
        torch.testing.assert_close(lm.model(ids).logits.cpu(), plain.model(IDS).logits)
