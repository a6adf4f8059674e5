"""Settings: one source of truth, and bad ones refused before anything is done."""

import tomllib
from pathlib import Path

import pytest

from flwr_collabedit.errors import ConfigurationError
from simulations.launch import read_settings
from simulations.settings import ExperimentSettings

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "simulations" / "configs").glob("*.toml"))


def test_flowers_defaults_are_the_settings_defaults():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    in_project = project["tool"]["flwr"]["app"]["config"]

    assert in_project == ExperimentSettings().to_run_config()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_are_valid(path, tmp_path):
    assert read_settings(path, [], tmp_path).folder == tmp_path


def test_settings_survive_a_run_config():
    settings = ExperimentSettings(num_clients=3, dtype="float64")

    assert ExperimentSettings.from_run_config(settings.to_run_config()) == settings


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"num-client": 3}, "Unknown setting 'num-client'.*'num-clients'"),
        ({"num-clients": 0}, "num-clients = 0"),
        ({"layer-schedule": "sync"}, "layer-schedule = 'sync'"),
        ({"output-folder": "runs/demo"}, "expected an absolute path"),
        ({"dtype": "float8"}, "dtype = 'float8'"),
        ({"shared-fraction": 1.0}, "shared-fraction = 1.0"),
        ({"resume": True, "checkpoints": "none"}, "resume needs checkpoints"),
        ({"resume": True, "strategy": "fed-edit"}, "resume needs checkpoints"),
        ({"min-edits-per-upload": 0}, "min-edits-per-upload = 0"),
        ({"few-edits": "warn"}, "not read with min-edits-per-upload = 1"),
        (
            {"min-edits-per-upload": 2, "strategy": "fed-edit"},
            "'fed-edit' does not read min-edits-per-upload = 2",
        ),
        ({"sentence-model": "some/model"}, "not read with partition = 'iid'"),
        ({"reference-texts": "embedded"}, "not read with generation-tokens = 0"),
        ({"editor-options": "consistent_keys"}, "inside of a TOML table"),
        ({"evaluate-every": 0}, "evaluate-every.* = 0"),
        ({"evaluate-every": "0,5"}, "evaluate-every.* = '0,5'"),
        ({"evaluate-every": "1,3", "num-rounds": 2}, "scores round 3, and there are 2"),
    ],
)
def test_wrong_settings_are_refused_by_name(config, text):
    with pytest.raises(ConfigurationError, match=text):
        ExperimentSettings.from_run_config(config)


def test_a_sentence_model_is_read_by_the_clusters():
    config = {"partition": "by-subject-cluster", "sentence-model": "some/model"}

    settings = ExperimentSettings.from_run_config(config)

    assert settings.sentence_model == "some/model"


@pytest.mark.parametrize(
    ("value", "rounds"), [(25, 25), ("5", 5), ("1,2", (1, 2)), ("2, 1", (2, 1))]
)
def test_rounds_are_scored_at_a_distance_or_by_number(value, rounds):
    settings = ExperimentSettings.from_run_config({"evaluate-every": value})

    assert settings.scored_rounds == rounds
    assert ExperimentSettings.from_run_config(settings.to_run_config()) == settings


def test_an_override_replaces_the_files_setting(tmp_path):
    settings = read_settings(CONFIGS[0], ["num-clients = 3"], tmp_path)

    assert settings.num_clients == 3


@pytest.mark.parametrize("text", ["num-clients", "model = embedded"])
def test_an_override_that_is_not_toml_is_refused(text, tmp_path):
    with pytest.raises(ConfigurationError, match="NAME=VALUE in TOML"):
        read_settings(CONFIGS[0], [text], tmp_path)


def test_a_config_file_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="found none"):
        read_settings(tmp_path / "missing.toml", [])


def test_a_run_without_a_folder_says_how_to_give_one():
    with pytest.raises(ConfigurationError, match="output-folder"):
        _ = ExperimentSettings().folder


@pytest.mark.parametrize("value", ["gpt2-xl", "/data/mine.json", ""])
def test_hyperparameters_are_a_set_or_an_absolute_path(value):
    settings = ExperimentSettings.from_run_config({"hyperparameters": value})

    assert settings.hyperparameters == value


@pytest.mark.parametrize("value", ["data/mine.json", "mine.json", "../gpt2-xl"])
def test_a_relative_file_of_hyperparameters_is_refused(value):
    with pytest.raises(ConfigurationError, match="set's name or an absolute path"):
        ExperimentSettings.from_run_config({"hyperparameters": value})
