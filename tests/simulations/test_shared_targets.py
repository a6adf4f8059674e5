"""Runs that share a cache folder share their clients' targets."""

from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from simulations import client_app
from simulations.settings import ExperimentSettings


@pytest.fixture
def state_folder(monkeypatch):
    """Return the state folder of client 1 under some settings."""
    monkeypatch.setattr(client_app, "language_model", lambda settings: None)
    monkeypatch.setattr(client_app, "clients_rounds", lambda settings: [[], []])
    monkeypatch.setattr(client_app, "EditingClient", lambda *args, **given: given)

    def find(**settings):
        run_config = ExperimentSettings(**settings).to_run_config()
        node = {"partition-id": 1, "num-partitions": 2}
        context = Context(1, 1, node, RecordDict(), run_config)
        return Path(client_app.client_fn(context)["state_folder"])

    return find


def test_targets_are_kept_in_the_run_folder_by_default(state_folder, tmp_path):
    run = tmp_path / "run"

    assert state_folder(output_folder=str(run)) == run / "clients" / "client-1"


def test_runs_with_one_cache_folder_share_targets(state_folder, tmp_path):
    cache = str(tmp_path / "cache")
    folders = {
        state_folder(output_folder=str(tmp_path / name), cache_folder=cache)
        for name in ("one", "two")
    }

    assert folders == {tmp_path / "cache" / "clients" / "client-1"}
