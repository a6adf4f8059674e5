"""Real clients give the same weights to strategies of either of Flower's APIs."""

import pytest
import torch
from federating import MEMIT, ROUNDS, SERVER, make_grid
from flwr.app import Context, RecordDict
from flwr.server import ServerAppComponents, ServerConfig
from flwr.serverapp import ServerApp
from flwr.serverapp.exception import AggregationError
from flwr.supercore.run import Run

from flwr_collabedit.algebra.priors import ridge_priors
from flwr_collabedit.client.personal_store import PersonalStore
from flwr_collabedit.models.fingerprint import describe
from flwr_collabedit.strategies import (
    CollabEditStrategy,
    EditAvg,
    FedEditStrategy,
    LegacyStrategy,
    SecureAggregation,
)


def run_legacy(server, grid, num_rounds=2):
    grid.set_run(Run.create_empty(1))
    components = ServerAppComponents(
        strategy=LegacyStrategy(server, num_rounds=num_rounds),
        config=ServerConfig(num_rounds=num_rounds),
    )
    app = ServerApp(server_fn=lambda context: components)
    app(grid, Context(1, 1, {}, RecordDict(), {}))
    return server


def timeless(server):
    found = []
    for report in server.reports:
        fields = {**report.to_dict(), "seconds": None}
        for client in fields["clients"].values():
            del client["seconds"]
        found.append(fields)
    return found


@pytest.mark.parametrize("kind", [CollabEditStrategy, EditAvg])
def test_both_apis_edit_and_score_alike(lm, moments, tmp_path, kind):
    def server():
        model = describe(lm, MEMIT.layers)
        if kind is EditAvg:
            return EditAvg(model, **SERVER)
        priors = ridge_priors(moments, MEMIT.second_moment_weight)
        return CollabEditStrategy(model, priors, **SERVER)

    expected, found = server(), server()
    expected.start(make_grid(lm, tmp_path / "a", moments), num_rounds=2)

    run_legacy(found, make_grid(lm, tmp_path / "b", moments))

    for name, delta in expected.state.deltas.items():
        assert delta.any()
        assert torch.equal(found.state.deltas[name], delta)
    assert timeless(found) == timeless(expected)


@pytest.mark.parametrize("schedule", ["frozen", "local"])
def test_real_clients_are_summed_securely_to_the_same_bits(
    lm, moments, tmp_path, schedule
):
    def server(**options):
        given = {**SERVER, "form": "dense", "layer_schedule": schedule, **options}
        model = describe(lm, MEMIT.layers)
        priors = ridge_priors(moments, MEMIT.second_moment_weight)
        return CollabEditStrategy(model, priors, **given)

    expected = server(wire_dtype="float64")
    expected.start(make_grid(lm, tmp_path, moments), num_rounds=1)
    found = server(wire_dtype="float64", secure=SecureAggregation())
    found.start(make_grid(lm, tmp_path, moments, secure_only=True), num_rounds=1)

    for name, delta in expected.state.deltas.items():
        assert delta.any()
        assert torch.equal(found.state.deltas[name], delta)


def test_a_client_that_only_sums_securely_refuses_plain_questions(
    lm, moments, tmp_path
):
    model = describe(lm, MEMIT.layers)
    priors = ridge_priors(moments, MEMIT.second_moment_weight)
    for server in (
        CollabEditStrategy(model, priors, **SERVER),
        EditAvg(model, **SERVER),
        FedEditStrategy(model, **SERVER, run_id="run"),
    ):
        grid = make_grid(lm, tmp_path, moments, secure_only=True)
        with pytest.raises(AggregationError, match="secure aggregation only"):
            server.start(grid, num_rounds=1)


def test_both_apis_leave_the_same_personal_models(lm, moments, tmp_path):
    model = describe(lm, MEMIT.layers)

    def server():
        return FedEditStrategy(
            model, **SERVER, wire_dtype="float64", run_id="run", alpha=-1.0
        )

    server().start(make_grid(lm, tmp_path / "a", moments), num_rounds=2)

    run_legacy(server(), make_grid(lm, tmp_path / "b", moments))

    for i in range(len(ROUNDS)):
        one, other = (
            PersonalStore(tmp_path / api / str(i)).load(
                "run", model.fingerprint, model.shapes
            )
            for api in "ab"
        )
        assert one.received == other.received
        for name, delta in one.deltas.items():
            assert torch.equal(other.deltas[name], delta)
