"""``collabedit covariance``: files, their table, and what a user's mistake gets."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from flwr_collabedit.cli import moments
from flwr_collabedit.cli.covariance import covariance
from flwr_collabedit.data.fact_world import embedded_corpus
from flwr_collabedit.editors.second_moment_file import read_card
from flwr_collabedit.editors.second_moment_folder import find_second_moments
from flwr_collabedit.models.loading import load_language_model

WEIGHT = "transformer.h.{}.mlp.c_proj.weight"


def call(*arguments: object):
    app = typer.Typer()
    app.command()(covariance)
    return CliRunner().invoke(app, [str(one) for one in arguments])


def rows(*arguments: object) -> list[dict]:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)["second_moments"]


def test_a_small_sample_has_its_files_where_edits_find_them(
    tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    made = rows("embedded", "--small", 1, "--layers", "0,2")

    assert [one["layer"] for one in made] == [0, 2]
    for one in made:
        assert 640 <= one["tokens"] < 640 + 64
        assert 0 < one["shrinkage"] < 0.1
        content = Path(one["file"]).read_bytes()
        assert one["sha256"] == hashlib.sha256(content).hexdigest()
    found = find_second_moments(load_language_model("embedded"), (0, 2))
    assert list(found) == [WEIGHT.format(0), WEIGHT.format(2)]


def test_the_published_layers_and_documents_are_the_default(
    tmp_path: Path, monkeypatch
):
    seen = []
    monkeypatch.setattr(
        moments, "estimate", lambda _, sources, *a, **k: seen.append(sources) or {}
    )

    call("embedded", "--out", tmp_path)
    call("embedded", "--out", tmp_path, "--samples", 5, "--max-length", 7)

    assert list(seen[0]) == [0, 1, 2]
    assert (seen[0][2].num_samples, seen[0][2].corpus) == (6000, "embedded")
    assert (seen[1][2].num_samples, seen[1][2].max_length) == (5, 7)


def test_a_table_and_lines_that_sha256sum_takes(tmp_path: Path):
    text = tmp_path / "town.txt"
    text.write_text("Paris is in France.\nRome is in Italy.\n")

    result = call(
        *("embedded", "--corpus", text, "--samples", 2, "--layer", 1),
        *("--out", tmp_path / "out"),
    )

    (path,) = (tmp_path / "out").iterdir()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == f"{digest}  {path}"
    assert "640" in result.stdout
    corpus = hashlib.sha256(text.read_bytes()).hexdigest()[:12]
    assert read_card(path).source.corpus == f"town.txt@{corpus}"
    assert read_card(path).shrinkage == 0.0


def test_a_layer_that_has_its_file_is_not_read_again(tmp_path: Path):
    rest = ("--samples", 3, "--out", tmp_path)
    first = rows("embedded", "--layers", "0", *rest)

    both = rows("embedded", "--layers", "0,1", *rest)

    assert first[0]["seconds"] > 0
    assert both[0]["seconds"] is None
    assert both[0]["sha256"] == first[0]["sha256"]
    assert both[1]["seconds"] > 0


def test_an_interrupted_command_says_so_and_goes_on(tmp_path: Path, monkeypatch):
    arguments = ("embedded", "--samples", 40, "--layers", 0, "--batch-size", 8)
    whole = rows(*arguments, "--out", tmp_path / "whole")

    def stopped():
        for count, text in enumerate(embedded_corpus()):
            if count == 20:
                raise KeyboardInterrupt
            yield text

    with monkeypatch.context() as patched:
        patched.setattr(moments, "embedded_corpus", stopped)
        result = call(*arguments, "--out", tmp_path / "parts")
    parts = rows(*arguments, "--out", tmp_path / "parts")

    assert result.exit_code == 130
    assert "The same command goes on" in result.stderr
    assert parts[0]["sha256"] == whole[0]["sha256"]
    assert [path.suffix for path in (tmp_path / "parts").iterdir()] == [".safetensors"]


def test_published_files_are_imported(tmp_path: Path):
    keys = np.random.default_rng(0).normal(size=(900, 640)).astype(np.float32)
    folder = tmp_path / "wikipedia_stats"
    folder.mkdir()
    for layer in (0, 1):
        np.savez(
            folder / f"{WEIGHT[:-7].format(layer)}_float32_mom2_100000.npz",
            **{"mom2.count": 900, "mom2.mom2": keys.T @ keys, "sample_size": 100_000},
        )

    made = rows("embedded", "--import-npz", folder, "--out", tmp_path / "ours")

    assert [(one["layer"], one["tokens"]) for one in made] == [(0, 900), (1, 900)]
    assert call("embedded", "--import-npz", folder, "--layer", 2).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gpt2-xl",), "Give --corpus"),
        (("embedded", "--small", 1, "--samples", 1), "either --small or --samples"),
        (("embedded", "--import-npz", "x", "--small", 1), "Leave them out"),
        (("embedded", "--layers", "a"), "layers such as 13,14,15, found 'a'"),
        (("embedded", "--layers", 9), "layers from 0 to"),
        (("embedded", "--corpus", "none.txt"), "'none.txt', found none"),
        (("embedded", "--small", 400, "--layers", 0), "Lower the multiple"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_told_in_a_sentence(tmp_path: Path, monkeypatch, arguments, said):
    monkeypatch.setattr(moments, "embedded_corpus", lambda: iter(["Rome is old."] * 9))

    result = call(*arguments, "--out", tmp_path / "out")

    assert result.exit_code == 2
    assert said in result.stderr
    assert not list((tmp_path / "out").glob("*.safetensors"))
