"""``collabedit train-editor``: what it writes, goes on with and refuses."""

import json

import pytest
import typer
from pico import pico_language_model
from typer.testing import CliRunner

from flwr_collabedit.cli.terminal import ExitCode
from flwr_collabedit.cli.train_editor import train_editor
from flwr_collabedit.editors.hypernetwork_file import load_hypernetwork
from flwr_collabedit.editors.hypernetwork_training import HypernetworkTraining

APP = typer.Typer()
APP.command()(train_editor)
NAMES = [f"Queen {number}" for number in range(1, 20)]


def run(*arguments: object):
    return CliRunner().invoke(APP, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    lm = pico_language_model("gpt2")
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "facts.json"
    records = [
        {
            "case_id": number,
            "requested_rewrite": {
                "prompt": "The mother tongue of {} is",
                "subject": name,
                "target_new": {"str": "English"},
                "target_true": {"str": "French"},
                "relation_id": "P103",
            },
            "paraphrase_prompts": [f"{name} is a native speaker of"],
            "neighborhood_prompts": ["The official language of Brazil is"],
            "attribute_prompts": [],
            "generation_prompts": [],
        }
        for number, name in enumerate(NAMES)
    ]
    file.write_text(json.dumps(records))
    return file


@pytest.fixture
def quick(model, data, tmp_path):
    return (
        *(model, "--data", data, "--layers", "1,2", "--steps", 3, "--batch", 8),
        *("--asked", 4, "--rank", 2, "--initial-rate", 0.01),
        *("--out", tmp_path / "net.safetensors", "--json"),
    )


def test_it_writes_a_network_and_tries_it_on_subjects_it_has_not_seen(quick, tmp_path):
    result = run(*quick)

    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    trained = load_hypernetwork(tmp_path / "net.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]
    assert said["fingerprint"] == trained.fingerprint
    assert said["layers"] == [1, 2] == list(trained.card.layers)
    assert said["steps"] == 3 == trained.card.num_steps
    assert said["held_out"] == 2  # Queen 15 and 18, by their hash
    assert said["scores"].keys() == {"before", "after"}


def test_an_interrupted_training_goes_on_to_the_same_file(quick, tmp_path, monkeypatch):
    assert run(*quick).exit_code == 0
    whole = (tmp_path / "net.safetensors").read_bytes()
    (tmp_path / "net.safetensors").unlink()
    step = HypernetworkTraining.step

    def interrupted(self):
        if self.num_steps == 2:
            raise KeyboardInterrupt
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(HypernetworkTraining, "step", interrupted)
        result = run(*quick)
    assert result.exit_code == ExitCode.INTERRUPTED
    assert "--resume goes on" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors.unfinished"]
    again = run(*quick)
    assert again.exit_code == ExitCode.MISTAKE
    assert "Add --resume" in again.stderr

    result = run(*quick, "--resume")

    assert result.exit_code == 0, result.output
    assert "after 2 steps" in result.stderr
    assert (tmp_path / "net.safetensors").read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def refused(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == ExitCode.MISTAKE, result.output
    return result.stderr


def test_a_file_in_the_way_is_kept(quick, tmp_path):
    (tmp_path / "net.safetensors").write_text("mine")

    assert "Expected no file" in refused(*quick)
    assert (tmp_path / "net.safetensors").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--resume",), "found none. Leave --resume out"),
        (("--editor", "memit"), "edits without any training"),
        (("--layers", "1,9"), "layers from 0 to 2"),
        (("--layers", "two"), "found 'two'"),
        (("--reduction", "max"), "reduction: Input should be 'sum' or 'mean'"),
        (("--asked", 64), "at least 64 subjects"),
        (("--initial-rate", -1), "initial_rate"),
        (("--data", ""), "Expected --data"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(quick, tmp_path, options, named):
    assert named in " ".join(refused(*quick, *options).split())
    assert not list(tmp_path.iterdir())


def test_a_reader_gets_a_table(quick):
    result = run(*(one for one in quick if one != "--json"))

    assert "facts of subjects not trained on" in result.stdout
    assert "Fingerprint:" in result.stdout
    assert "MALMEN for layers 1, 2" in result.stdout
