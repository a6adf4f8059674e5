"""Whole simulations on the embedded model: what a run leaves behind."""

import json
from typing import ClassVar

import pytest
from flwr.app import Context, RecordDict
from safetensors.torch import load_file

from flwr_collabedit.errors import ConfigurationError
from simulations.engines import Engine
from simulations.in_process import InProcessGrid, run_in_process
from simulations.launch import run
from simulations.run_folder import RunFolder
from simulations.settings import ExperimentSettings

SMALL = {
    "num_clients": 2,
    "num_rounds": 2,
    "num_edits": 8,
    "second_moment_samples": 500,
    "context_starters": "The",
}


def settings(folder, **changes) -> ExperimentSettings:
    return ExperimentSettings(output_folder=str(folder), **{**SMALL, **changes})


@pytest.mark.parametrize("engine", list(Engine))
def test_a_run_edits_as_the_pooled_reference_and_leaves_its_results(engine, tmp_path):
    run(settings(tmp_path), engine)

    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["score_before"] < 5
    assert summary["score_after"] > 90
    assert abs(summary["score_after"] - summary["score_pooled"]) <= 0.1
    assert summary["accuracy_score_after"] > 80
    assert len(summary["gap_to_pooled"]) == 3
    assert max(summary["gap_to_pooled"].values()) < 1e-4
    assert summary["upload_bytes_per_client"] > 0
    assert summary["seconds"] > 0
    rounds = (tmp_path / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["server_round"] for line in rounds] == [0, 1, 2]
    assert set(load_file(tmp_path / "delta.safetensors")) == set(
        summary["gap_to_pooled"]
    )
    assert "| CollabEdit |" in (tmp_path / "report.md").read_text()
    cases = (tmp_path / "cases" / "client-1-round-2.jsonl").read_text().splitlines()
    assert len(cases) == 4
    resolved = json.loads((tmp_path / "settings.json").read_text())
    assert resolved["settings"]["num-edits"] == 8
    assert resolved["packages"]["flwr"]


def test_a_model_and_wire_in_float64_agree_to_rounding(tmp_path):
    run(
        settings(tmp_path, dtype="float64", wire_dtype="float64"),
        Engine.IN_PROCESS,
    )

    summary = json.loads((tmp_path / "summary.json").read_text())
    assert max(summary["gap_to_pooled"].values()) < 1e-9


def test_more_clients_than_edits_is_refused_before_anything_is_written(tmp_path):
    from simulations.server_app import app

    wrong = settings(tmp_path / "run", num_clients=9)
    context = Context(1, 1, {}, RecordDict(), wrong.to_run_config())

    with pytest.raises(ConfigurationError, match=r"9.*8|8.*9"):
        app(InProcessGrid(app, 9), context)

    assert not (tmp_path / "run").exists()


def test_a_layer_out_of_range_is_refused_before_anything_is_written(tmp_path):
    from simulations.server_app import app

    published = tmp_path / "edit.json"
    published.write_text('{"layers": [0, 99]}')
    wrong = settings(tmp_path / "run", hyperparameters=str(published))
    context = Context(1, 1, {}, RecordDict(), wrong.to_run_config())

    with pytest.raises(ConfigurationError, match="99"):
        app(InProcessGrid(app, 2), context)

    assert not (tmp_path / "run").exists()


def test_without_an_output_folder_results_go_to_the_home(tmp_path, monkeypatch):
    from simulations.client_app import app as client_app
    from simulations.server_app import app

    monkeypatch.setenv("HOME", str(tmp_path))
    config = ExperimentSettings(**{**SMALL, "num_rounds": 1}).to_run_config()

    run_in_process(app, client_app, 2, config)

    assert (tmp_path / "collabedit-runs" / "run-1" / "summary.json").exists()


def test_evaluations_wait_no_longer_than_exchanges(tmp_path):
    from simulations.client_app import app as client_app
    from simulations.server_app import app

    class NotingGrid(InProcessGrid):
        waits: ClassVar[set[float | None]] = set()

        def send_and_receive(self, messages, *, timeout=None):
            self.waits.add(timeout)
            return super().send_and_receive(messages, timeout=timeout)

    own = settings(tmp_path, num_rounds=1, exchange_timeout=321.0)
    config = own.to_run_config()

    app(NotingGrid(client_app, 2, config), Context(1, 1, {}, RecordDict(), config))

    assert NotingGrid.waits == {321.0}


def test_a_run_folder_never_keeps_the_summary_of_the_run_before(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_json("summary.json", {"score_after": 1})

    folder.start({"seed": 0})

    assert not (tmp_path / "summary.json").exists()


@pytest.mark.parametrize("editor", ["memit", "pmet"])
def test_a_received_vector_answers_the_senders_fact_without_a_gradient_step(
    editor, tmp_path
):
    own = settings(
        tmp_path,
        strategy="fed-edit",
        editor=editor,
        alpha=-1.0,
        subjects="all",
        num_rounds=1,
    )

    run(own, Engine.IN_PROCESS)

    summary = json.loads((tmp_path / "summary.json").read_text())
    [slot] = summary["rounds"]
    received = slot["personal"]["mean"]["received"]
    assert received["records"] == slot["mediator"]["reused"] == own.num_edits
    assert received["EA"] >= 75
    # Each vector went to the one other client: all steps are made once, saved once.
    assert slot["mediator"]["steps-saved"] == slot["mediator"]["gradient-steps"] > 0
    assert not (tmp_path / "delta.safetensors").exists()
    assert "| mean: received |" in (tmp_path / "report.md").read_text()


def test_a_run_starts_its_personal_models_anew(tmp_path):
    own = settings(tmp_path, strategy="fed-edit", alpha=1.0, pooled_reference=False)

    for _ in range(2):
        run(own, Engine.IN_PROCESS)

    assert json.loads((tmp_path / "summary.json").read_text())["score_after"] > 90
