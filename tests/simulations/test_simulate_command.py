"""``collabedit simulate``: a run that the other commands go on with."""

import json
import tomllib

import pytest
from typer.testing import CliRunner

from flwr_collabedit.errors import ConfigurationError
from simulations.cli import app
from simulations.flower_app import write_app
from simulations.settings import ExperimentSettings
from simulations.superlink import script

SMALL = (
    *("--engine", "in-process", "--set", "num-clients = 2", "--set", "num-rounds = 1"),
    *("--set", "num-edits = 6", "--set", "second-moment-samples = 500"),
    *("--set", 'context-starters = "The"', "--set", "health-samples = 2"),
)


def called(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "small"
    result = called("simulate", "demo", "--out", folder, *SMALL)
    assert result.exit_code == 0, result.output
    assert "Scores over all edits" in result.stdout
    return folder


def test_a_runs_edit_can_be_asked(run):
    summary = json.loads((run / "summary.json").read_text())
    found = called("ask", run, "The capital of France is", "--json")

    assert found.exit_code == 0, found.output
    (prompt,) = json.loads(found.stdout)["prompts"]
    assert prompt["base"]["answer"] == "Paris"
    assert summary["scores"]["CollabEdit"]["EA"] > 60


@pytest.mark.parametrize(("form", "file"), [("lora", "adapter_config.json")])
def test_a_runs_edit_can_be_exported(run, tmp_path, form, file):
    found = called("export", run, tmp_path / "out", "--as", form, "--json")

    assert found.exit_code == 0, found.output
    assert (tmp_path / "out" / file).is_file()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "CollabEdit" in card


def test_an_unknown_config_or_setting_is_told_in_a_sentence(tmp_path):
    unknown = called("simulate", "demmo", "--out", tmp_path / "a")
    wrong = called(
        "simulate", "demo", "--out", tmp_path / "a", "--set", "num-cliets = 2"
    )

    assert (unknown.exit_code, wrong.exit_code) == (2, 2)
    assert "'demo'" in unknown.output
    assert "num-clients" in wrong.output
    assert not (tmp_path / "a").exists()


def test_there_must_be_a_run_to_go_on_with(tmp_path):
    result = called("simulate", "demo", "--resume", tmp_path / "none")

    assert result.exit_code == 2
    assert "folder of an interrupted run" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_and_one_to_go_on_with_exclude_each_other(run, tmp_path):
    result = called("simulate", "demo", "--out", tmp_path / "a", "--resume", run)

    assert result.exit_code == 2
    assert "either --out or --resume" in " ".join(result.output.split())
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("rounds", [0, 1])
def test_a_run_that_did_not_finish_says_how_to_go_on(rounds, tmp_path, monkeypatch):
    from simulations import launch

    def dies(settings, *_, **__):
        for number in range(rounds):
            path = settings.folder / "checkpoints" / f"round-{number}.safetensors"
            path.parent.mkdir(parents=True)
            path.touch()

    monkeypatch.setattr(launch, "run", dies)

    found = called("simulate", "demo", "--out", tmp_path / "a")

    assert found.exit_code == 1
    text = "".join(found.output.split())  # the terminal folds it
    assert "didnotfinish" in text
    assert (f"--resume{tmp_path / 'a'}" in text) == (rounds > 0)


def test_flowers_commands_are_found_on_the_path_too(tmp_path, monkeypatch):
    command = tmp_path / "flower-of-elsewhere"
    command.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert script("flower-of-elsewhere") == str(command)
    with pytest.raises(ConfigurationError, match="Install"):
        script("flower-of-nowhere")


def test_the_flower_app_has_every_setting(tmp_path):
    app_folder = write_app(tmp_path / "collabedit-run")

    project = tomllib.loads((app_folder / "pyproject.toml").read_text())
    flower = project["tool"]["flwr"]["app"]
    assert flower["config"] == ExperimentSettings().to_run_config()
    for path in flower["components"].values():
        module, name = path.split(":")
        file = app_folder / (module.replace(".", "/") + ".py")
        assert name in file.read_text()
