import json
import shutil
from types import SimpleNamespace

import pytest
import torch
import typer
from pico import pico_language_model
from typer.testing import CliRunner

from flwr_collabedit.cli.export import export
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.export.edit_folder import DELTA_FILE, EditCard, save_edit
from flwr_collabedit.models.fingerprint import fingerprint
from flwr_collabedit.models.weights import weight_shapes

app = typer.Typer()
app.command()(export)


@pytest.fixture(scope="module")
def edit(tmp_path_factory):
    """Return the folder of an edit, whose base model stands beside it."""
    folder = tmp_path_factory.mktemp("edit")
    lm = pico_language_model("gpt2")
    lm.model.save_pretrained(folder / "base")
    lm.tokenizer.save_pretrained(folder / "base")
    generator = torch.Generator().manual_seed(0)
    deltas = {
        name: torch.randn(d_value, 2, generator=generator, dtype=torch.float64)
        @ torch.randn(2, d_key, generator=generator, dtype=torch.float64)
        for name, (d_value, d_key) in weight_shapes(lm, [0, 1]).items()
    }
    card = EditCard(
        model=str(folder / "base"),
        fingerprint=fingerprint(lm, [0, 1]),
        layers=(0, 1),
        editor="{}",
        num_edits=2,
        settings={"dtype": "float32"},
    )
    save_edit(folder / "mine" / DELTA_FILE, deltas, card)
    return folder / "mine"


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.mark.parametrize(
    ("form", "weights"),
    [
        ("model", "model.safetensors"),
        ("delta", "delta.safetensors"),
        ("lora", "adapter_model.safetensors"),
    ],
)
def test_a_folder_of_the_asked_form_is_told_in_json(edit, tmp_path, form, weights):
    out = tmp_path / "out"

    result = run(edit, out, "--as", form, "--json")

    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["form"], told["folder"]) == (form, str(out))
    assert told["files"] == {p.name: p.stat().st_size for p in out.iterdir()}
    assert told["bytes"] == sum(told["files"].values())
    assert {weights, "README.md"} <= told["files"].keys()
    rank = 2 if form == "lora" else None
    assert [layer["rank"] for layer in told["layers"]] == [rank, rank]
    assert all(layer["relative_error"] < 1e-6 for layer in told["layers"])


def test_a_reader_is_told_the_ranks_the_errors_and_the_bytes(edit, tmp_path):
    result = run(edit, tmp_path / "out", "--as", "lora", "--rank", "1")

    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    [first] = [line.split() for line in lines if "h.0.mlp" in line]
    assert first[2] == "1"
    assert float(first[3]) > 0.1
    assert any(line.startswith("adapter_model.safetensors") for line in lines)


def test_a_dtype_and_another_place_of_the_base_model_are_heeded(edit, tmp_path):
    from transformers import AutoModelForCausalLM

    moved = shutil.copytree(edit.parent / "base", tmp_path / "moved")

    result = run(
        edit, tmp_path / "out", "--dtype", "bfloat16", "--model", moved, "--json"
    )

    assert result.exit_code == 0, result.output
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert found.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--as", "model", "--rank", "3"), "'lora' only"),
        (("--as", "delta", "--dtype", "float32"), "always float64; found 'float32'"),
        (("--model", "embedded"), "found other weights or another tokenizer"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(edit, tmp_path, options, said):
    result = run(edit, tmp_path / "out", *options)

    assert result.exit_code == 2
    assert said in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_content_is_refused_before_a_model_is_loaded(edit, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")

    result = run(edit, tmp_path, "--model", "no/such/model")

    assert result.exit_code == 2
    assert "Choose another name" in result.stderr
    assert (tmp_path / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize(
    ("options", "base", "revision"),
    [
        ((), "some/model", "abc"),
        (("--revision", "def"), "some/model", "def"),
        (("--model", "my/copy"), "my/copy", ""),
    ],
    ids=["as edited", "revision", "model"],
)
def test_the_base_model_is_loaded_as_it_was_edited(
    tmp_path, monkeypatch, options, base, revision
):
    def refuse(name, **how):
        raise ConfigurationError(f"{name} {how}")

    monkeypatch.setattr("flwr_collabedit.models.loading.load_language_model", refuse)
    card = EditCard(
        model="some/model",
        revision="abc",
        fingerprint="",
        layers=(0,),
        editor="{}",
        num_edits=1,
        settings={"dtype": "bfloat16"},
    )
    save_edit(tmp_path / DELTA_FILE, {"a.weight": torch.ones(1, 1)}, card)

    result = run(tmp_path, tmp_path / "out", *options)

    how = {"revision": revision, "dtype": "bfloat16", "device": "cpu"}
    assert f"{base} {how}" in result.stderr


def test_what_is_no_edit_is_refused(tmp_path):
    result = run(tmp_path, tmp_path / "out")

    assert result.exit_code == 2
    assert "found no delta.safetensors" in result.stderr


def test_a_full_disk_ends_with_its_own_code_and_nothing_written(
    edit, tmp_path, monkeypatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=9))

    result = run(edit, tmp_path / "out", "--json")

    assert result.exit_code == 3
    assert json.loads(result.stdout)["error"]["type"] == "DiskSpaceError"
    assert "Free some space" in result.stderr
    assert list(tmp_path.iterdir()) == []
