from pathlib import Path

import pytest
import torch
from pico import pico_language_model
from torch import nn
from transformers import BertConfig, ByT5Tokenizer

from flwr_collabedit.errors import ConfigurationError, UnsupportedArchitectureError
from flwr_collabedit.models.loading import load_language_model
from flwr_collabedit.models.tokenizer_loading import load_tokenizer


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
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
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


def test_a_revision_is_for_the_hub_only(folder: Path) -> None:
    for name in (str(folder), "embedded"):
        with pytest.raises(ConfigurationError, match=r"'v2'.*Leave the revision out"):
            load_language_model(name, revision="v2")


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model in a hub cache: 'main' is one commit, 'v2' another with other weights."""
    name, cache = "somebody/model", tmp_path / "cache"
    repository = cache / "models--somebody--model"
    commits = {"main": "1" * 40, "v2": "2" * 40}
    for number, (reference, commit) in enumerate(commits.items()):
        snapshot = repository / "snapshots" / commit
        lm = pico_language_model("gpt2", seed=number)
        lm.model.save_pretrained(snapshot)
        lm.tokenizer.chat_template = f"of seed {number}"
        lm.tokenizer.save_pretrained(snapshot)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / reference).write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(cache))
    return name


@pytest.mark.parametrize(
    ("revision", "seed"), [("", 0), ("main", 0), ("v2", 1), ("2" * 40, 1)]
)
def test_a_hub_models_revision_is_loaded(hub: str, revision: str, seed: int) -> None:
    expected = pico_language_model("gpt2", seed=seed)

    lm = load_language_model(hub, revision=revision)

    name = lm.weight_name(1)
    weight = expected.model.get_parameter(name)
    assert torch.equal(lm.model.get_parameter(name), weight)
    assert lm.tokenizer.chat_template == f"of seed {seed}"
    assert (lm.name, lm.revision) == (hub, revision)


def test_an_unknown_revision_is_named_with_a_remedy(hub: str) -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"somebody/model.*revision 'v3'.*commit, tag or branch",
    ):
        load_language_model(hub, revision="v3")


def test_missing_weights_are_not_drawn_at_random(tmp_path: Path) -> None:
    lm = pico_language_model("llama")
    lm.decoder.save_pretrained(tmp_path)  # the model without its head
    lm.tokenizer.save_pretrained(tmp_path)

    with pytest.raises(ConfigurationError, match=r"'lm_head\.weight'.*without its"):
        load_language_model(str(tmp_path))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_model_without_its_tokenizer_is_refused(family: str, tmp_path: Path) -> None:
    pico_language_model(family).model.save_pretrained(tmp_path)

    with pytest.raises(ConfigurationError, match="tokenizer"):
        load_language_model(str(tmp_path))
    with pytest.raises(ConfigurationError, match="tokenizer"):
        load_tokenizer(str(tmp_path))


def test_a_slow_tokenizer_is_refused(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    ByT5Tokenizer().save_pretrained(folder)

    with pytest.raises(ConfigurationError, match="fast tokenizer"):
        load_language_model(str(folder))


def test_a_device_without_room_says_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(nn.Module, "to", full)

    with pytest.raises(
        torch.OutOfMemoryError, match=r"float64 on device 'cpu'.*'bfloat16'.*'balanced'"
    ):
        load_language_model(str(folder), dtype="float64")


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    with pytest.raises(ConfigurationError, match=r"'cuda:2'.*'cuda:1'"):
        load_language_model("embedded", device="cuda:2")
