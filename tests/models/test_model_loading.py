from pathlib import Path

import pytest
import torch
from pico import pico_language_model
from torch import nn
from transformers import BertConfig

from flwr_collabedit.errors import ConfigurationError, UnsupportedArchitectureError
from flwr_collabedit.models.loading import load_language_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    gpt2 = pico_language_model("gpt2")
    gpt2.model.save_pretrained(tmp_path)
    gpt2.tokenizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_a_saved_model_is_loaded_in_the_asked_dtype(folder: Path, dtype: str) -> None:
    source = pico_language_model("gpt2")

    lm = load_language_model(str(folder), dtype=dtype)

    assert lm.name == str(folder)
    assert lm.dtype == getattr(torch, dtype)
    weight = source.model.get_parameter(source.weight_name(1))
    assert torch.equal(lm.model.get_parameter(lm.weight_name(1)), weight.to(lm.dtype))
    assert lm.tokenizer.get_vocab() == source.tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("device", "has_cuda", "expected"),
    [
        ("auto", True, "cuda"),
        ("auto", False, "cpu"),
        ("cuda", True, "cuda"),
        ("cuda:1", True, "cuda:1"),
        ("cpu", True, "cpu"),
    ],
)
def test_the_weights_go_to_the_asked_device(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    has_cuda: bool,
    expected: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    moves: list[torch.device] = []
    monkeypatch.setattr(nn.Module, "to", lambda _, target: moves.append(target))

    load_language_model(str(folder), device=device)

    assert moves == [torch.device(expected)]


def test_auto_is_the_accelerator_where_there_is_one(folder: Path) -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"

    assert load_language_model(str(folder), device="auto").device.type == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "float23"}, "'float23'.*'float32'"),
        ({"device": "gpu"}, "'gpu'"),
    ],
)
def test_unknown_settings_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_language_model("embedded", **settings)


def test_an_absent_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(ConfigurationError, match="no CUDA device"):
        load_language_model("embedded", device="cuda:0")


def test_an_unknown_model_says_what_was_tried(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no folder nowhere/model exists"):
        load_language_model("nowhere/model")
    with pytest.raises(ConfigurationError, match=r"folder .* was read"):
        load_language_model(str(tmp_path))


def test_an_unknown_family_is_refused_before_weights_are_read(tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path)

    with pytest.raises(UnsupportedArchitectureError, match="'bert'"):
        load_language_model(str(tmp_path))
