"""Strategies that merge clients' own deltas, and CollabEdit over the same clients."""

from functools import partial

import pytest
import torch
from federation import (
    MODEL,
    WEIGHT,
    Edits,
    client_app,
    pooled_deltas,
    second_moments,
    strategy,
)
from flwr.app import Message
from test_collab_edit import BAD_REPLIES, relative_gap, replace_array

from flwr_collabedit.algebra.merging import (
    edit_average,
    simple_average,
    task_arithmetic,
    ties,
)
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.messages.payloads import CONFIG, read_deltas
from flwr_collabedit.strategies import (
    EditAvg,
    SimpleAverage,
    TaskArithmetic,
    TiesMerging,
)
from simulations.in_process import InProcessGrid

CLIENTS = [Edits.random(n, 20 + n) for n in (5, 0, 2)]
COUNTS = [5, 0, 2]
METHODS = {
    "edit-avg": (EditAvg, {}, partial(edit_average, num_edits=COUNTS)),
    "simple-average": (SimpleAverage, {}, simple_average),
    "task-arithmetic": (
        TaskArithmetic,
        {"scale": 0.7},
        partial(task_arithmetic, scale=0.7),
    ),
    "ties": (
        TiesMerging,
        {"density": 0.3, "scale": 0.4},
        partial(ties, density=0.3, scale=0.4),
    ),
}
SCHEDULES = {  # what the strategy is given, what each client then does by itself
    "local": ({}, ("synchronous", "remaining")),
    "frozen": ({"layer_schedule": "frozen"}, ("frozen", "uniform")),
    "published": (
        {"layer_schedule": "frozen", "residual_split": "remaining"},
        ("frozen", "remaining"),
    ),
}


def run(kind=None, app=None, clients=CLIENTS, num_rounds=1, **options):
    server = strategy(len(clients), kind, **options)
    grid = InProcessGrid(app or client_app(clients), len(clients))
    result = server.start(grid, num_rounds=num_rounds)
    return list(read_deltas(result.arrays, MODEL).values()), server


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("method", METHODS)
def test_the_server_adds_what_the_rule_makes_of_the_clients_deltas(method, schedule):
    kind, options, rule = METHODS[method]
    given, alone = SCHEDULES[schedule]

    found, _ = run(kind, **options, **given)

    own = [pooled_deltas(edits, *alone) for edits in CLIENTS]
    expected = [rule(layer) for layer in zip(*own, strict=True)]
    assert relative_gap(found, expected) < 1e-9


@pytest.mark.parametrize("method", METHODS)
def test_a_second_round_adds_to_the_first(method):
    kind, options, rule = METHODS[method]

    found, _ = run(kind, num_rounds=2, **options)

    first, _ = run(kind, **options)
    own = [
        pooled_deltas(edits, "synchronous", "remaining", start=first)
        for edits in CLIENTS
    ]
    expected = [
        start + rule([after - start for after in layer])
        for start, *layer in zip(first, *own, strict=True)
    ]
    assert relative_gap(found, expected) < 1e-9


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_clients_changes_nothing(method):
    kind, options, _ = METHODS[method]

    found, _ = run(kind, clients=CLIENTS[::-1], **options)

    assert relative_gap(found, run(kind, **options)[0]) < 1e-12


def test_one_client_alone_is_memit_itself():
    found, _ = run(EditAvg, clients=CLIENTS[:1])

    assert relative_gap(found, pooled_deltas(CLIENTS[0], *SCHEDULES["local"][1])) < 1e-9


def test_ties_over_a_float32_wire_costs_no_more_than_its_rounding():
    kind, options, _ = METHODS["ties"]

    found, _ = run(kind, wire_dtype="float32", **options)

    assert 0 < relative_gap(found, run(kind, **options)[0]) < 1e-5


def test_the_report_counts_one_exchange_of_deltas():
    seen: list[Message] = []

    _, server = run(EditAvg, app=client_app(CLIENTS, seen=seen))

    report = server.reports[-1]
    payload = 3 * 3 * 8 * 5 * 12
    residual = sum(float(c.goals.square().sum()) for c in CLIENTS) ** 0.5
    assert len(seen) == 3
    assert (report.num_edits, report.num_clients) == (7, 3)
    assert payload < report.upload_bytes < payload + 9 * 200
    assert report.residual_norm_before == pytest.approx(residual)
    assert set(report.seconds) == {"exchange", "merge", "targets", "measure"}
    config = seen[0].content.config_records[CONFIG]
    assert (config["form"], config["layer-schedule"]) == ("delta", "local")


@pytest.mark.parametrize(
    "reason", [r for r in BAD_REPLIES if r != "has rank 4 for only 2 edits"]
)
def test_a_bad_reply_is_left_out_with_its_reason(reason):
    clients = [Edits.random(4, seed) for seed in range(3)]

    def tamper(index: int, reply: Message) -> Message:
        return BAD_REPLIES[reason](reply) if index == 1 else reply

    found, server = run(
        SimpleAverage, client_app(clients, tamper), clients, min_replies=2
    )

    good = run(SimpleAverage, clients=[clients[0], clients[2]])[0]
    assert relative_gap(found, good) < 1e-12
    (why,) = server.reports[-1].dropped.values()
    assert reason in why


def test_a_delta_above_the_norm_bound_is_left_out():
    def tamper(index: int, reply: Message) -> Message:
        return replace_array(reply, lambda a: a * 1e9) if index == 0 else reply

    _, server = run(
        TaskArithmetic, client_app(CLIENTS, tamper), max_norm=1e3, min_replies=2
    )

    assert "exceeds the bound" in next(iter(server.reports[-1].dropped.values()))


@pytest.mark.parametrize("form", ["factors", "dense"])
def test_collab_edit_over_local_measurements_is_exact_at_the_first_layer_only(form):
    edits = Edits.random(9, 1)
    clients = [edits.take(range(4)), edits.take(range(4, 9))]

    found, server = run(clients=clients, layer_schedule="local", form=form)

    pooled = pooled_deltas(edits, "synchronous", "remaining")
    assert relative_gap(found[:1], pooled[:1]) < 1e-9
    assert relative_gap(found[1:2], pooled[1:2]) > 1e-3
    assert relative_gap(found[2:], pooled[2:]) > 1e-3
    assert server.reports[-1].num_edits == 9


def test_collab_edit_over_local_measurements_is_the_papers_merge():
    """``sum Delta_i (C + K_i K_i^T) (C + sum K_j K_j^T)^-1``, as published."""
    clients = [Edits.random(4, 1), Edits.random(5, 2)]

    found, _ = run(clients=clients, layer_schedule="local")

    own = [pooled_deltas(edits, "synchronous", "remaining") for edits in clients]
    for layer, name in enumerate(MODEL.parameters):
        prior = WEIGHT * second_moments()[name]
        grams = []
        for edits, deltas in zip(clients, own, strict=True):
            keys, _ = edits.measure(layer, deltas)
            grams.append(keys @ keys.T)
        uploads = sum(d[layer] @ (prior + g) for d, g in zip(own, grams, strict=True))
        expected = uploads @ torch.linalg.inv(prior + sum(grams))
        assert relative_gap([found[layer]], [expected]) < 1e-9


def test_collab_edit_of_one_client_alone_is_memit_itself():
    found, _ = run(clients=CLIENTS[:1], layer_schedule="local")

    pooled = pooled_deltas(CLIENTS[0], "synchronous", "remaining")
    assert relative_gap(found, pooled) < 1e-9


@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        (EditAvg, {"layer_schedule": "synchronous"}, "Use 'local' or 'frozen'"),
        (EditAvg, {"residual_split": "uniform"}, "must be 'remaining'"),
        (TaskArithmetic, {"scale": 0.0}, "scale above 0"),
        (TiesMerging, {"scale": -1.0}, "scale above 0"),
        (TiesMerging, {"density": 0.0}, "density above 0"),
        (None, {"layer_schedule": "local", "sweeps": 2}, "'synchronous' or 'frozen'"),
        (None, {"form": "delta"}, "CollabEdit sums statistics"),
    ],
)
def test_wrong_options_are_refused_with_a_remedy(kind, options, text):
    with pytest.raises(ConfigurationError, match=text):
        strategy(2, kind, **options)
