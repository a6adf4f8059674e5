"""``collabedit locate``: what it writes, says and refuses."""

import json

import pytest
import typer
from pico import pico_language_model
from typer.testing import CliRunner

pytest.importorskip("matplotlib")

from flwr_collabedit.cli.locate import locate
from flwr_collabedit.cli.terminal import ExitCode
from flwr_collabedit.editors.config import MemitConfig

APP = typer.Typer()
APP.command()(locate)


def run(*arguments: object):
    return CliRunner().invoke(APP, [str(argument) for argument in arguments])


QUICK = ("--last-only", "--limit", 12, "--samples", 2)


def test_it_writes_picture_numbers_and_hyperparameters(tmp_path):
    out = tmp_path / "found"
    result = run("embedded", *QUICK, "--out", out, "--json")

    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    written = json.loads((out / "trace.json").read_text())
    assert sorted(path.name for path in out.iterdir()) == [
        *("edit.json", "trace.json", "trace.png")
    ]
    assert said["layers"] == written["layers"]
    assert said["averages"] == written["averages"]
    assert said["num_traced"] == len(written["traces"]) == 12
    config = MemitConfig.from_published(out / "edit.json")
    assert list(config.layers) == said["layers"] != []
    assert config.loss_layer == 4


def test_a_reader_gets_a_table_of_layers(tmp_path):
    result = run("embedded", *QUICK, "--out", tmp_path / "found")

    assert "MLPs severed" in result.stdout
    assert "Layers to edit: 0, 1" in result.stdout
    assert "mom2_update_weight" in result.stdout
    assert "12 known of 12" in result.stderr


def test_facts_of_a_file_are_traced(tmp_path):
    facts = tmp_path / "facts.json"
    known = [
        {"subject": s, "template": "The capital of {} is", "attribute": c}
        for s, c in [("France", "Paris"), ("Italy", "Rome"), ("Spain", "Atlantis")]
    ]
    facts.write_text(json.dumps(known))
    out = tmp_path / "found"
    result = run("embedded", *QUICK, "--facts", facts, "--out", out, "--json")

    traced = json.loads((out / "trace.json").read_text())["traces"]
    assert [trace["subject"] for trace in traced] == ["France", "Italy"]
    assert "2 known of 3" in result.stderr
    assert "Expected 12 known facts" in result.stderr


def test_where_no_layer_stands_out_there_is_nothing_to_edit_by(tmp_path):
    out = tmp_path / "found"
    result = run("embedded", *QUICK, "--noise", 1e-7, "--out", out)

    assert result.exit_code == ExitCode.FOUND_WRONG
    assert "hardly makes the model forget" in result.stderr
    assert "No layer stands out" in result.stderr
    assert sorted(path.name for path in out.iterdir()) == ["trace.json", "trace.png"]


def refused(tmp_path, *arguments: object) -> str:
    result = run(*arguments, "--out", tmp_path / "found")
    assert result.exit_code == ExitCode.MISTAKE, result.output
    assert not (tmp_path / "found").exists()
    assert not list(tmp_path.glob(".draft*"))
    return result.stderr


def test_another_model_needs_facts(tmp_path):
    assert "Expected --facts for 'gpt2'" in refused(tmp_path, "gpt2")


def test_a_model_of_one_block_is_refused(tmp_path):
    folder = tmp_path / "shallow"
    lm = pico_language_model("gpt2", num_layers=1)
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    facts = tmp_path / "facts.json"
    facts.write_text('[{"subject": "a", "template": "{} is", "attribute": "b"}]')

    assert "at least 2 blocks" in refused(tmp_path, folder, "--facts", facts)


def test_facts_that_nobody_knows_are_refused(tmp_path):
    facts = tmp_path / "facts.json"
    facts.write_text('[{"subject": "a", "template": "{} is", "attribute": "b"}]')

    assert "none of 1" in refused(tmp_path, "embedded", "--facts", facts)


def test_a_folder_with_content_is_kept(tmp_path):
    (tmp_path / "mine.txt").touch()
    result = run("embedded", *QUICK, "--out", tmp_path)

    assert result.exit_code == ExitCode.MISTAKE
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("name", ["--noise", "--limit", "--window"])
def test_settings_out_of_range_are_refused(tmp_path, name):
    assert run("embedded", name, -1, "--out", tmp_path / "x").exit_code == 2
