"""The same weights through Flower's legacy API as through its message API."""

import pytest
import torch
from federation import Edits, strategy
from flwr.app import ConfigRecord, Context, RecordDict
from flwr.common import parameters_to_ndarrays
from flwr.server import (
    LegacyContext,
    Server,
    ServerAppComponents,
    ServerConfig,
    SimpleClientManager,
)
from flwr.server.client_proxy import ClientProxy
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.workflow import DefaultWorkflow
from flwr.serverapp import ServerApp
from flwr.serverapp.exception import AggregationError
from flwr.supercore.run import Run
from numbers_client import both_apps, numbers_client_fn

from flwr_collabedit.client.editing_app import make_client_app
from flwr_collabedit.conflict_resolution import Resolution
from flwr_collabedit.errors import ConfigurationError, PayloadError
from flwr_collabedit.messages.payloads import digest, pack_deltas
from flwr_collabedit.strategies import (
    DeclarationRules,
    EditAvg,
    EditStrategy,
    SimpleAverage,
    TaskArithmetic,
    TiesMerging,
)
from flwr_collabedit.strategies.legacy import LegacyStrategy
from flwr_collabedit.strategies.legacy_grid import LegacyGrid
from simulations.in_process import InProcessGrid

ROUNDS = 2
CLIENTS = [
    [Edits.random(num_edits, 10 * index + r) for r in range(ROUNDS)]
    for index, num_edits in enumerate((3, 1, 4))
]
# An edit that another client has as well, so that declarations have something to say.
CLIENTS[1][0] = CLIENTS[0][0].take([1])
STRATEGIES = {
    "synchronous": {},
    "synchronous, two sweeps": {"sweeps": 2},
    "frozen": {"layer_schedule": "frozen", "form": "dense"},
    "frozen, sweeps until settled": {
        "layer_schedule": "frozen",
        "sweeps": 5,
        "sweep_tolerance": 0.2,
    },
    "local": {"layer_schedule": "local"},
    "d4s, some asked": {
        "layer_schedule": "frozen",
        "history": "d4s",
        "fraction_train": 0.67,
        "seed": 4,
    },
    "declared": {
        "declarations": DeclarationRules(resolution=Resolution("first-come", "once"))
    },
    "edit-avg": {"kind": EditAvg},
    "simple-average": {"kind": SimpleAverage, "wire_dtype": "float32"},
    "task-arithmetic": {"kind": TaskArithmetic},
    "ties": {"kind": TiesMerging, "layer_schedule": "frozen"},
}


def server_of(**options) -> EditStrategy:
    return strategy(len(CLIENTS), **{"evaluate": True, **options})


def context() -> Context:
    return Context(1, 1, {}, RecordDict(), {})


def run_legacy(server: EditStrategy, app, num_rounds: int = ROUNDS) -> Server:
    """Run Flower's own server with a legacy strategy; return that server."""
    found = Server(
        client_manager=SimpleClientManager(),
        strategy=LegacyStrategy(server, num_rounds=num_rounds),
    )
    grid = InProcessGrid(app, len(CLIENTS))
    grid.set_run(Run.create_empty(1))
    config = ServerConfig(num_rounds=num_rounds)
    components = ServerAppComponents(server=found, config=config)
    ServerApp(server_fn=lambda context: components)(grid, context())
    return found


def run_message(server: EditStrategy, app) -> EditStrategy:
    server.start(InProcessGrid(app, len(CLIENTS)), num_rounds=ROUNDS)
    return server


def comparable(server: EditStrategy) -> list[dict[str, object]]:
    timeless = []
    for report in server.reports:
        fields = report.to_dict()
        del fields["seconds"]
        for client in fields["clients"].values():
            del client["seconds"]
        timeless.append(fields)
    return timeless


@pytest.mark.parametrize("app", ["ours", "legacy only"])
@pytest.mark.parametrize("options", STRATEGIES.values(), ids=STRATEGIES)
def test_both_apis_give_the_same_bits_and_reports(options, app):
    apps = both_apps(CLIENTS)
    expected = run_message(server_of(**options), apps["ours"])
    server = server_of(**options)

    flowers = run_legacy(server, apps[app])

    assert digest(pack_deltas(server.state.deltas, "float64")) == digest(
        pack_deltas(expected.state.deltas, "float64")
    )
    assert comparable(server) == comparable(expected)
    # What Flower's server holds in the end is what the strategy holds.
    held = parameters_to_ndarrays(flowers.parameters)
    for array, delta in zip(held, server.state.deltas.values(), strict=True):
        assert torch.equal(torch.tensor(array), delta)


def test_flowers_history_has_the_figures_of_rounds_and_evaluations():
    server = server_of(layer_schedule="frozen")
    found = Server(
        client_manager=SimpleClientManager(),
        strategy=LegacyStrategy(server, num_rounds=ROUNDS),
    )
    grid = InProcessGrid(both_apps(CLIENTS)["ours"], len(CLIENTS))
    for node in grid.get_node_ids():
        found.client_manager().register(GridClientProxy(node, grid, 1))

    history, _ = found.fit(ROUNDS, None)

    edits = [count for _, count in history.metrics_distributed_fit["num-examples"]]
    assert edits == [report.num_edits for report in server.reports[1:]]
    scores = [value for _, value in history.metrics_distributed["ES"]]
    assert scores == [report.evaluation["ES"] for report in server.reports[1:]]
    deltas = list(server.state.deltas.values())
    left = [
        value.item()
        for rounds in CLIENTS
        for value in rounds[0].measure(len(deltas) - 1, deltas)[1].norm(dim=0)
    ]
    (_, last) = history.losses_distributed[-1]
    assert last == pytest.approx(sum(left) / len(left))


def test_an_evaluation_that_is_not_due_is_not_asked_for():
    server = server_of(layer_schedule="frozen", evaluate_every=3)
    asked = []
    client_fn = numbers_client_fn(CLIENTS, lambda i, a: asked.append(a))

    run_legacy(server, make_client_app(client_fn), num_rounds=ROUNDS)

    evaluated = [a.server_round for a in asked if not a.measured]
    assert evaluated == [0] * len(CLIENTS) + [ROUNDS] * len(CLIENTS)


def test_a_resumed_run_goes_on_where_the_other_api_stopped(tmp_path):
    options = {"layer_schedule": "frozen", "checkpoint_folder": tmp_path}
    apps = both_apps(CLIENTS)
    server_of(**options).start(
        InProcessGrid(apps["ours"], len(CLIENTS)), num_rounds=ROUNDS - 1
    )
    server = server_of(**options)

    flowers = run_legacy(server, apps["legacy only"])

    assert flowers.strategy.configure_evaluate(1, None, SimpleClientManager()) == []
    expected = run_message(server_of(layer_schedule="frozen"), apps["ours"])
    assert [r.server_round for r in server.reports] == [0, 1, 2]
    for name, delta in expected.state.deltas.items():
        assert torch.equal(server.state.deltas[name], delta)


def failing(index: int, asked) -> None:
    if index == 1 and asked.measured:
        raise RuntimeError("no disk")


def test_a_client_that_fails_is_left_out_with_its_reason():
    app = make_client_app(numbers_client_fn(CLIENTS, failing))
    server = server_of(layer_schedule="frozen", min_replies=2)

    run_legacy(server, app)

    others = both_apps([CLIENTS[0], CLIENTS[2]])["ours"]
    expected = strategy(2, layer_schedule="frozen")
    expected.start(InProcessGrid(others, 2), num_rounds=ROUNDS)
    for name, delta in expected.state.deltas.items():
        assert torch.equal(server.state.deltas[name], delta)
    ((_, reason),) = server.reports[-1].dropped.items()
    assert "RuntimeError; the client" in reason


def test_a_round_below_min_replies_ends_the_run_loudly():
    app = make_client_app(numbers_client_fn(CLIENTS, failing))

    with pytest.raises(AggregationError, match=r"at least 3 valid.*RuntimeError"):
        run_legacy(server_of(), app)


def test_the_loss_is_the_mean_of_those_that_evaluated():
    def hook(index, asked):
        if index == 1 and not asked.measured and asked.server_round == 1:
            raise RuntimeError("no model")

    app = make_client_app(numbers_client_fn(CLIENTS, hook))
    server = server_of(layer_schedule="frozen", min_replies=2)
    shell = LegacyStrategy(server, num_rounds=1)
    grid = LegacyGrid(InProcessGrid(app, len(CLIENTS)))
    shell.fit_round(grid, 1)

    found = shell.evaluate_round(grid, 1)

    deltas = list(server.state.deltas.values())
    left = [
        CLIENTS[i][0].measure(len(deltas) - 1, deltas)[1].norm(dim=0) for i in (0, 2)
    ]
    assert found.loss == pytest.approx(torch.cat(left).mean().item())
    assert found.num_examples == 7


def test_an_evaluation_below_min_replies_ends_the_run_loudly():
    def hook(index, asked):
        if index == 1 and asked.server_round == 1 and not asked.measured:
            raise RuntimeError("no model")

    app = make_client_app(numbers_client_fn(CLIENTS, hook))

    with pytest.raises(AggregationError, match=r"Evaluation of round 1.*RuntimeError"):
        run_legacy(server_of(), app)


def test_flowers_workflow_is_refused_in_words():
    shell = LegacyStrategy(server_of(), num_rounds=1)
    grid = InProcessGrid(both_apps(CLIENTS)["ours"], len(CLIENTS))
    grid.set_run(Run.create_empty(1))
    config = ServerConfig(num_rounds=1)
    legacy_context = LegacyContext(context(), config=config, strategy=shell)

    with pytest.raises(ConfigurationError, match="ServerAppComponents"):
        DefaultWorkflow()(grid, legacy_context)


class StrangeProxy(ClientProxy):
    get_properties = get_parameters = fit = evaluate = reconnect = None


def test_clients_that_are_not_behind_a_grid_are_refused_in_words():
    manager = SimpleClientManager()
    manager.register(StrangeProxy("10.0.0.1:4000"))
    shell = LegacyStrategy(server_of(), num_rounds=1)

    with pytest.raises(ConfigurationError, match="StrangeProxy"):
        shell.initialize_parameters(manager)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.config_records.pop("fitres.status"),
        lambda content: content.array_records["fitres.parameters"].popitem(),
        lambda content: content.metric_records.clear(),
        lambda content: content["fitres.status"].update(code=3),
    ],
    ids=["no status", "an array less", "no number", "status"],
)
def test_a_damaged_legacy_reply_costs_only_itself(damage):
    app = both_apps(CLIENTS)["legacy only"]

    def damaged(message, context):
        reply = app(message, context)
        if context.node_config["partition-id"] == 1 and "fitres.status" in (
            reply.content
        ):
            damage(reply.content)
        return reply

    server = server_of(layer_schedule="frozen", min_replies=2)
    run_legacy(server, damaged)

    ((_, reason),) = server.reports[-1].dropped.items()
    assert "legacy reply of an EditingClient" in reason or "FIT_NOT_IMPL" in reason
    assert server.reports[-1].num_clients == 2


def test_a_list_in_the_configuration_is_refused():
    server = server_of(layer_schedule="frozen")
    grid = LegacyGrid(InProcessGrid(both_apps(CLIENTS)["ours"], len(CLIENTS)))

    with pytest.raises(PayloadError, match="'tags' is a list"):
        server.start(grid, num_rounds=1, evaluate_config=ConfigRecord({"tags": [1]}))
