"""Runs with ``data = "nodes"``: the same apps where every party has its own facts."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from flwr.app import Context, RecordDict
from safetensors.torch import load_file

from deployment.parties import write_parties
from flwr_collabedit.errors import CheckpointError, ConfigurationError
from flwr_collabedit.export.edit_folder import load_edit
from flwr_collabedit.fact_tags import TagKey
from flwr_collabedit.strategies import RoundReport
from simulations import client_app, server_app
from simulations.engines import Engine
from simulations.in_process import InProcessGrid
from simulations.launch import read_settings, run
from simulations.run_folder import RunFolder
from simulations.settings import ExperimentSettings
from simulations.written import num_written

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


def serve(settings: ExperimentSettings, *node_configs) -> None:
    """Run a deployment's apps in this process, with a node for each config."""
    grid = InProcessGrid(client_app.app, len(node_configs), settings.to_run_config())
    for node_config, own in zip(node_configs, grid.contexts.values(), strict=True):
        own.node_config = node_config
    server_app.app(grid, context(settings))


def deltas_of(folder: Path):
    return load_file(folder / "delta.safetensors")


def test_parties_with_files_of_their_own_edit_as_the_simulation(tmp_path):
    deployed = nodes_settings(tmp_path / "deployed", conflict_policy="report")
    alike = simulated(deployed, tmp_path / "simulated")
    run(alike, Engine.IN_PROCESS)
    parties = write_parties(alike, tmp_path / "parties")
    key = tmp_path / "key.txt"
    TagKey.generate().to_file(key)

    serve(deployed, *({**p.node_config, "conflict-key": str(key)} for p in parties))

    found, expected = (deltas_of(s.folder) for s in (deployed, alike))
    assert found.keys() == expected.keys()
    assert len(found) == 3
    assert all(found[name].equal(delta) for name, delta in expected.items())
    summaries = [
        json.loads((s.folder / "summary.json").read_text()) for s in (deployed, alike)
    ]
    assert summaries[0]["score_after"] == pytest.approx(summaries[1]["score_after"])
    assert summaries[0]["score_after"] > 90
    assert [report["num_edits"] for report in summaries[0]["rounds"]] == [3, 3]
    _, card = load_edit(deployed.folder)
    assert card.num_edits == 6
    # Neither facts nor the parties' key are in the server's folder.
    texts = "".join(
        path.read_text() for path in deployed.folder.rglob("*.json*") if path.is_file()
    )
    for party in parties:
        facts = json.loads(Path(party.node_config["edits-path"]).read_text())
        assert all(fact["subject"] not in texts for fact in facts)
    assert not (deployed.folder / "clients").exists()


def test_a_party_joins_later_and_another_one_leaves_without_a_trace(tmp_path):
    d4s = {"history": "d4s", "sweeps": 1, "evaluate_every": 9}
    both = nodes_settings(tmp_path / "run", num_clients=2, **d4s)
    parties = write_parties(simulated(both, tmp_path), tmp_path / "parties")
    first, second = (dict(party.node_config) for party in parties)
    serve(both, first, second)
    # The third one has the facts of the first two rounds of the first one.
    third = {**first, "name": "third", "first-round": 3}
    third["state-folder"] = str(tmp_path / "parties" / "third")
    then = {"num_clients": 3, "num_rounds": 4, "withdraw": "client:client-0@3"}
    serve(both.model_copy(update={"resume": True, **then}), first, second, third)

    alone = nodes_settings(tmp_path / "alone", num_clients=2, num_rounds=4, **d4s)
    serve(alone, second, third)

    found, expected = (deltas_of(s.folder) for s in (both, alone))
    assert all(found[name].equal(delta) for name, delta in expected.items())
    assert any(bool(delta.any()) for delta in expected.values())
    counts = [load_edit(settings.folder)[1].num_edits for settings in (both, alone)]
    assert counts == [6, 6]


def test_a_deployments_edits_are_those_of_kept_rounds_and_not_withdrawn():
    reports = [
        RoundReport(1, num_edits=5),
        RoundReport(2, num_edits=7, refused="perplexity"),
        RoundReport(3, num_edits=2, declared={"withdrawn": 3}),
    ]

    assert num_written([], SimpleNamespace(reports=reports)) == 5 + 2 - 3


def test_settings_of_the_past_cannot_change_in_a_deployment(tmp_path):
    settings = nodes_settings(tmp_path)
    folder = RunFolder(tmp_path)
    folder.start(settings.to_run_config())
    later = settings.model_copy(update={"num_rounds": 9, "withdraw": "round:1@3"})

    folder.start(later.to_run_config(), resume=True)

    with pytest.raises(CheckpointError, match="sweeps = 2"):
        folder.start({**settings.to_run_config(), "sweeps": 3}, resume=True)


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
