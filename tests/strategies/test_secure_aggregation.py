"""CollabEdit through Flower's SecAgg+: same weights, dropouts, refusals, secrecy."""

import numpy as np
import pytest
from federation import D_KEY, D_VALUE, MODEL, Edits, strategy
from flwr.app import Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import bytes_to_ndarray
from flwr.common.secure_aggregation.secaggplus_constants import (
    RECORD_KEY_CONFIGS,
    Key,
    Stage,
)
from flwr.server import ServerAppComponents, ServerConfig
from flwr.serverapp import ServerApp
from flwr.serverapp.exception import AggregationError
from flwr.supercore.run import Run
from numbers_client import NumbersClient, numbers_client_fn

from flwr_collabedit.client.editing_app import make_client_app
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.strategies import (
    CollabEditStrategy,
    DeclarationRules,
    LegacyStrategy,
    SecureAggregation,
    Withdrawal,
)
from simulations.in_process import InProcessGrid

CLIENTS = [
    [Edits.random(n, 10 * i), Edits.random(2, i)] for i, n in enumerate((3, 1, 4, 0))
]
FROZEN = {"layer_schedule": "frozen"}
SCHEDULES = {
    "synchronous": {},
    "frozen, two sweeps": {"layer_schedule": "frozen", "sweeps": 2},
    "local": {"layer_schedule": "local"},
    "d4s, two rounds": {
        "layer_schedule": "frozen",
        "history": "d4s",
        "num_rounds": 2,
    },
}


class StagedApp:
    """A ClientApp that may fail at a stage of the protocol, and keeps all replies."""

    def __init__(self, clients, fails=lambda index, stage: False, tamper=None):
        self.app = make_client_app(numbers_client_fn(clients))
        self.fails, self.tamper = fails, tamper
        self.replies: list[tuple[int, str, Message]] = []

    def __call__(self, message, context):
        index = int(context.node_config["partition-id"])
        configs = message.content.config_records.get(RECORD_KEY_CONFIGS, {})
        stage = str(configs.get(Key.STAGE, ""))
        if stage and self.fails(index, stage):
            raise RuntimeError(f"client {index} left at {stage}")
        reply = self.app(message, context)
        if self.tamper:
            self.tamper(index, stage, reply)
        self.replies.append((index, stage, reply))
        return reply


def run(clients=CLIENTS, app=None, num_rounds=1, **options) -> CollabEditStrategy:
    server = strategy(len(clients), form="dense", **options)
    app = app or make_client_app(numbers_client_fn(clients))
    server.start(InProcessGrid(app, len(clients)), num_rounds=num_rounds)
    return server


def secure(**options) -> CollabEditStrategy:
    return run(**{"secure": SecureAggregation(num_limbs=2), **options})


def gap(found: CollabEditStrategy, expected: CollabEditStrategy) -> float:
    return max(
        float((found.state.deltas[name] - delta).norm() / delta.norm())
        for name, delta in expected.state.deltas.items()
    )


@pytest.mark.parametrize("options", SCHEDULES.values(), ids=SCHEDULES)
def test_the_secure_sum_is_the_plain_sum(options):
    expected, found = run(**options), secure(**options)
    exact = run(secure=SecureAggregation(num_limbs=3), **options)

    assert 0 < gap(found, expected) < 1e-12
    assert gap(exact, expected) == 0
    plain, summed = expected.reports[-1], found.reports[-1]
    assert summed.num_edits == plain.num_edits
    assert summed.edits_by_client == plain.edits_by_client
    assert summed.residual_norm_before == pytest.approx(plain.residual_norm_before)


def test_one_limb_is_worse_by_its_missing_bits():
    gaps = [
        gap(run(secure=SecureAggregation(num_limbs=n), **FROZEN), run(**FROZEN))
        for n in (1, 2)
    ]

    assert 1e-7 < gaps[0] < 1e-3
    assert gaps[1] < gaps[0] * 2.0**-24


def leaves(who: int, when: str):
    return lambda index, stage: (index, stage) == (who, when)


@pytest.mark.parametrize("when", [Stage.SETUP, Stage.SHARE_KEYS, "fit"])
def test_one_of_four_that_drops_out_is_left_out_of_the_sum(when):
    stage = Stage.COLLECT_MASKED_VECTORS if when == "fit" else when
    app = StagedApp(CLIENTS, leaves(2, stage))

    found = secure(app=app, min_replies=3, **FROZEN)

    others = run([CLIENTS[i] for i in (0, 1, 3)], **FROZEN)
    assert gap(found, others) < 1e-12
    report = found.reports[-1]
    assert report.num_clients == 3
    assert report.num_edits == 4
    ((_, reason),) = report.dropped.items()
    assert f"client 2 left at {stage}" in reason


def test_who_leaves_once_it_has_sent_is_in_the_sum():
    app = StagedApp(CLIENTS, leaves(2, Stage.UNMASK))

    found = secure(app=app, min_replies=3, **FROZEN)

    assert gap(found, run(**FROZEN)) < 1e-12
    assert found.reports[-1].num_clients == 4
    assert found.reports[-1].dropped == {}


def test_one_that_leaves_in_the_middle_of_a_round_is_not_asked_again():
    calls = []

    def fails(index, stage):
        calls.append((index, stage))
        return index == 2 and stage == Stage.COLLECT_MASKED_VECTORS

    found = secure(app=StagedApp(CLIENTS, fails), min_replies=3)

    assert gap(found, run([CLIENTS[i] for i in (0, 1, 3)])) < 1e-12
    assert calls.count((2, Stage.SETUP)) == 1


def test_below_min_replies_the_round_is_refused_with_the_reason():
    app = StagedApp(CLIENTS, leaves(2, Stage.COLLECT_MASKED_VECTORS))

    with pytest.raises(AggregationError, match=r"at least 4.*found 3.*client 2 left"):
        secure(app=app)


def test_two_of_four_that_drop_out_cannot_be_unmasked():
    app = StagedApp(
        CLIENTS, lambda i, stage: i < 2 and stage == Stage.COLLECT_MASKED_VECTORS
    )

    with pytest.raises(AggregationError, match=r"at least 2.*found 0.*client 0 left"):
        secure(app=app, min_replies=1)


def test_a_sum_of_one_is_refused():
    app = StagedApp(CLIENTS, lambda i, stage: i > 0 and stage == Stage.SETUP)

    with pytest.raises(AggregationError, match=r"at least 2.*found 0"):
        secure(app=app, min_replies=1)


def test_a_refused_round_leaves_the_state_as_it_was():
    app = StagedApp(CLIENTS, leaves(2, Stage.COLLECT_MASKED_VECTORS))
    server = strategy(4, form="dense", secure=SecureAggregation())

    with pytest.raises(AggregationError):
        server.start(InProcessGrid(app, 4), num_rounds=1)

    assert not any(delta.any() for delta in server.state.deltas.values())
    assert server.state.took_part == {}


def test_an_entry_that_would_be_clipped_is_refused_by_the_client():
    options = SecureAggregation(cross_exponent=-40)

    with pytest.raises(AggregationError, match=r"cross.*clipped.*cross_exponent"):
        run(secure=options)


def test_the_server_receives_masked_numbers_only():
    app = StagedApp(CLIENTS)
    server = secure(app=app, **FROZEN)

    collected = [
        (index, reply)
        for index, stage, reply in app.replies
        if stage == Stage.COLLECT_MASKED_VECTORS
    ]
    assert len(collected) == len(CLIENTS)
    sent = 0
    priors = server.priors
    task = server.secure.task(len(CLIENTS), priors)
    sizes = [D_KEY * (D_KEY + 1) // 2] * 2 + [D_VALUE * D_KEY] * 2
    for index, reply in collected:
        assert not any(record for record in reply.content.array_records.values())
        masked = reply.content.config_records[RECORD_KEY_CONFIGS][Key.MASKED_PARAMETERS]
        sent += sum(map(len, masked))
        arrays = [bytes_to_ndarray(one) for one in masked][1:]  # the weight is first
        assert [a.size for a in arrays] == sizes * len(MODEL.parameters)
        for array in arrays:
            # Client 3 has no edits: without a mask its numbers were all alike.
            assert len(np.unique(array)) == array.size, f"client {index}"
            assert array.max() > 0.8 * 2**32 > task.quantization_range
    assert server.reports[-1].upload_bytes == sent
    clients = server.reports[-1].clients.values()
    assert sum(client["upload-bytes"] for client in clients) == sent
    assert all(client["upload-bytes"] and client["seconds"] for client in clients)
    metrics = collected[0][1].content.config_records["fitres.metrics"]
    assert set(metrics) == {
        *("num-examples", "residual-square", "sender", "schema-version", "phase"),
        *("fingerprint", "server-round", "round-id", "form", "layer-schedule"),
    }


def set_metric(key, value):
    def tamper(index, stage, reply):
        if index == 1 and stage == Stage.COLLECT_MASKED_VECTORS:
            reply.content.config_records["fitres.metrics"][key] = value

    return tamper


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("fingerprint", "another model", "fingerprint"),
        ("server-round", "0", "server-round"),
        ("num-examples", -3, "expected a count"),
        ("num-examples", "many", "num-examples"),
        ("residual-square", float("nan"), "residual-square"),
        ("sender", "client-0", "has the name 'client-0' already"),
    ],
)
def test_a_wrong_reply_in_a_sum_refuses_the_round(key, value, reason):
    app = StagedApp(CLIENTS, tamper=set_metric(key, value))

    with pytest.raises(AggregationError, match=rf"{reason}.*Nobody can be left out"):
        secure(app=app, min_replies=2, **FROZEN)


def test_another_weight_in_a_sum_refuses_the_round():
    class Heavy(NumbersClient):
        def fit(self, parameters, config):
            arrays, number, figures = super().fit(parameters, config)
            return arrays, 7 * number if self.index == 1 else number, figures

    app = make_client_app(
        lambda c: Heavy(
            int(c.node_config["partition-id"]),
            CLIENTS[int(c.node_config["partition-id"])],
            lambda *_: None,
        )
    )

    with pytest.raises(AggregationError, match="Expected weight 1, found 7"):
        secure(app=app)


@pytest.mark.parametrize("kind", ["ours", "legacy only"])
def test_the_legacy_api_gives_the_same_bits(kind):
    client_fn = numbers_client_fn(CLIENTS)
    app = make_client_app(client_fn)
    if kind == "legacy only":
        app = ClientApp(lambda c: client_fn(c).to_client(), mods=[secaggplus_mod])
    server = strategy(4, form="dense", secure=SecureAggregation(), **FROZEN)
    grid = InProcessGrid(app, 4)
    grid.set_run(Run.create_empty(1))
    components = ServerAppComponents(
        strategy=LegacyStrategy(server, num_rounds=1), config=ServerConfig(num_rounds=1)
    )

    ServerApp(server_fn=lambda context: components)(
        grid, Context(1, 1, {}, RecordDict(), {})
    )

    assert gap(server, run(**FROZEN)) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"form": "factors"},
        {"max_norm": 3.0},
        {
            "history": "d4s",
            "layer_schedule": "frozen",
            "withdrawals": [Withdrawal.parse("client:client-0@2")],
        },
        {
            "history": "d4s",
            "layer_schedule": "frozen",
            "declarations": DeclarationRules(take_back=True),
        },
    ],
    ids=["form", "max_norm", "withdrawals", "declarations"],
)
def test_options_that_a_sum_cannot_serve_are_refused(options):
    with pytest.raises(ConfigurationError, match=r"[Ss]ecure aggregation"):
        strategy(4, **{"form": "dense", **options}, secure=SecureAggregation())


@pytest.mark.parametrize("options", [{"num_limbs": 0}, {"threshold": 0.5}])
def test_secure_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigurationError, match="num_limbs"):
        SecureAggregation(**options)
