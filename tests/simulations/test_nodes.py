"""Runs with ``data = "nodes"``: the same apps where every party has its own facts."""

import json
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict
from safetensors import safe_open

from deployment.parties import write_parties
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.fact_tags import TagKey
from simulations import client_app, server_app
from simulations.engines import Engine
from simulations.in_process import InProcessGrid
from simulations.launch import read_settings, run
from simulations.settings import ExperimentSettings

NODES = {"data": "nodes", "pooled-reference": False}


def nodes_settings(folder, **changes) -> ExperimentSettings:
    """Return the shipped configuration of a deployment, made small."""
    settings = read_settings(
        "deployment", ["second-moment-samples = 500", "num-rounds = 2"], folder
    )
    return settings.model_copy(update={"sweeps": 2, **changes})


def simulated(settings: ExperimentSettings, folder) -> ExperimentSettings:
    update = {
        "data": "embedded",
        "num_edits": 6,
        "health_samples": 0,
        "output_folder": str(folder),
    }
    return settings.model_copy(update=update)


def context(settings: ExperimentSettings, **node_config) -> Context:
    return Context(1, 1, node_config, RecordDict(), settings.to_run_config())


def test_parties_with_files_of_their_own_edit_as_the_simulation(tmp_path):
    deployed = nodes_settings(tmp_path / "deployed", conflict_policy="report")
    alike = simulated(deployed, tmp_path / "simulated")
    run(alike, Engine.IN_PROCESS)
    parties = write_parties(alike, tmp_path / "parties")
    grid = InProcessGrid(client_app.app, 3, deployed.to_run_config())
    key = tmp_path / "key.txt"
    TagKey.generate().to_file(key)
    for party, own in zip(parties, grid.contexts.values(), strict=True):
        own.node_config = {**party.node_config, "conflict-key": str(key)}

    server_app.app(grid, context(deployed))

    files = [s.folder / "delta.safetensors" for s in (deployed, alike)]
    opened = [safe_open(path, framework="pt") for path in files]
    assert len(set(opened[0].keys())) == 3
    for name in list(opened[1].keys()):
        assert opened[0].get_tensor(name).equal(opened[1].get_tensor(name))
    summaries = [
        json.loads((s.folder / "summary.json").read_text()) for s in (deployed, alike)
    ]
    assert summaries[0]["score_after"] == pytest.approx(summaries[1]["score_after"])
    assert summaries[0]["score_after"] > 90
    assert [report["num_edits"] for report in summaries[0]["rounds"]] == [3, 3]
    card = json.loads(next(iter(opened[0].metadata().values())))
    assert card["num_edits"] == 6
    # Neither facts nor the parties' key are in the server's folder.
    texts = "".join(
        path.read_text() for path in deployed.folder.rglob("*.json*") if path.is_file()
    )
    for party in parties:
        facts = json.loads(Path(party.node_config["edits-path"]).read_text())
        assert all(fact["subject"] not in texts for fact in facts)
    assert not (deployed.folder / "clients").exists()


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"pooled-reference": True}, "pooled-reference = true.*false"),
        ({"num-edits": 10}, "num-edits = 10 is not read.*deployment.md"),
        ({"shared-fraction": 0.1}, "shared-fraction = 0.1"),
        ({"health-samples": 10}, "health-samples = 10"),
        ({"min-edits-per-upload": 2}, "min-edits-per-upload = 2"),
        ({"conflict-key": "/k", "conflict-policy": "report"}, "conflict-key = '/k'"),
        ({"layer-schedule": "local"}, "layer-schedule = 'local'.*'frozen'"),
        ({"strategy": "edit-avg", "layer-schedule": "frozen"}, "'edit-avg'"),
        ({"strategy": "fed-edit"}, "'fed-edit'"),
    ],
)
def test_what_only_a_simulation_can_do_is_refused(config, text):
    with pytest.raises(ConfigurationError, match=text):
        ExperimentSettings.from_run_config({**NODES, **config})


def test_a_deployment_is_not_simulated(tmp_path):
    with pytest.raises(ConfigurationError, match=r"'nodes'.*flwr run"):
        run(nodes_settings(tmp_path / "run"), Engine.IN_PROCESS)

    assert not (tmp_path / "run").exists()


def test_a_node_with_facts_of_its_own_refuses_the_servers(tmp_path):
    settings = simulated(nodes_settings(tmp_path), tmp_path)

    with pytest.raises(ConfigurationError, match=r"'embedded'.*data = 'nodes'"):
        client_app.client_fn(
            context(settings, **{"edits-path": "/own.json", "partition-id": 0})
        )
