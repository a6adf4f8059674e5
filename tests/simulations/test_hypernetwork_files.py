"""A config or sweep file names a trained network, relative to where it is started."""

import pytest

from flwr_collabedit.errors import ConfigurationError, HypernetworkError
from simulations.engines import Engine
from simulations.hypernetwork_files import check_file
from simulations.launch import read_settings, run
from simulations.settings import ExperimentSettings
from simulations.sweep import sweep
from simulations.sweep_file import read_sweep

MALMEN = 'editor = "malmen"\nhypernetwork = "nets/one.safetensors"\n'


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_configs_relative_file_is_one_of_the_working_directory(here):
    (here / "my.toml").write_text(MALMEN)

    settings = read_settings("my.toml", [], here / "run")

    assert settings.hypernetwork == str(here / "nets" / "one.safetensors")


def test_so_is_an_overrides_file(here):
    settings = read_settings("malmen", ['hypernetwork = "my"'], here / "run")

    assert settings.hypernetwork == str(here / "my")


@pytest.mark.parametrize("head", ["[fixed]", "[[methods]]\nname = 'a'"])
def test_so_is_a_sweeps_file(here, head):
    (here / "sweep.toml").write_text(f"{head}\n{MALMEN}")

    (cell,) = read_sweep(here / "sweep.toml", here / "out")

    assert cell.settings.hypernetwork == str(here / "nets" / "one.safetensors")


def test_flowers_processes_take_no_relative_file():
    with pytest.raises(ConfigurationError, match="expected an absolute path"):
        ExperimentSettings.from_run_config(
            {"editor": "malmen", "hypernetwork": "nets/one.safetensors"}
        )


def test_a_network_that_is_missing_is_told_with_its_training_before_any_work(here):
    settings = read_settings("malmen", [], here / "run")
    text = (
        "for MALMEN at '.*malmen.safetensors', found none. Train one: collabedit "
        "train-editor embedded --editor malmen --out /"
    )

    with pytest.raises(HypernetworkError, match=text):
        run(settings, Engine.IN_PROCESS)
    assert not (here / "run").exists()


def test_a_sweep_without_the_network_starts_no_cell(here):
    (here / "sweep.toml").write_text(
        f"[[methods]]\nname = 'first'\n[[methods]]\nname = 'second'\n{MALMEN}"
    )

    with pytest.raises(HypernetworkError, match="Train one"):
        sweep(here / "sweep.toml", here / "out", engine=Engine.IN_PROCESS)
    assert not (here / "out").exists()


def test_other_editors_need_no_file():
    check_file(ExperimentSettings())
