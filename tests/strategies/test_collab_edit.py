"""Merged equals pooled, whatever the split, the schedule, the form and the order."""

import pytest
import torch
from federation import (
    D_KEY,
    D_VALUE,
    MODEL,
    Edits,
    client_app,
    pooled_deltas,
    second_moments,
    strategy,
)
from flwr.app import Array, ArrayRecord, Message
from flwr.serverapp.exception import AggregationError
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flwr_collabedit.algebra.priors import RidgePrior, ridge_priors
from flwr_collabedit.errors import ConfigurationError, SecondMomentError
from flwr_collabedit.messages.payloads import (
    ARRAYS,
    CONFIG,
    METRICS,
    NUM_EDITS,
    read_deltas,
)
from flwr_collabedit.strategies import CollabEditStrategy
from simulations.in_process import InProcessGrid

SPLITS = {"synchronous": "remaining", "frozen": "uniform"}


def merged(
    clients: list[Edits], num_rounds: int = 1, app=None, **options: object
) -> tuple[list[Tensor], CollabEditStrategy]:
    server = strategy(len(clients), **options)
    grid = InProcessGrid(app or client_app(clients), len(clients))
    result = server.start(grid, num_rounds=num_rounds)
    return list(read_deltas(result.arrays, MODEL).values()), server


def relative_gap(found: list[Tensor], expected: list[Tensor]) -> float:
    pairs = zip(found, expected, strict=True)
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


@settings(max_examples=25, deadline=None)
@given(
    owners=st.lists(st.integers(0, 3), min_size=1, max_size=20),
    schedule=st.sampled_from(sorted(SPLITS)),
    form=st.sampled_from(["factors", "dense"]),
    seed=st.integers(0, 1000),
)
def test_merged_equals_pooled_for_any_split(owners, schedule, form, seed):
    edits = Edits.random(len(owners), seed)
    clients = [
        edits.take([i for i, owner in enumerate(owners) if owner == client])
        for client in range(4)
    ]

    found, _ = merged(clients, layer_schedule=schedule, form=form)

    expected = pooled_deltas(edits, schedule, SPLITS[schedule])
    assert relative_gap(found, expected) < 1e-9


def test_the_published_split_of_collabedit_also_merges_exactly():
    edits = Edits.random(9, 1)
    clients = [edits.take(range(4)), edits.take(range(4, 9))]

    found, _ = merged(clients, layer_schedule="frozen", residual_split="remaining")

    assert relative_gap(found, pooled_deltas(edits, "frozen", "remaining")) < 1e-9


def test_schedules_differ_where_lower_layers_change_the_keys():
    edits = Edits.random(9, 2)

    synchronous, _ = merged([edits], layer_schedule="synchronous")
    frozen, _ = merged([edits], layer_schedule="frozen", residual_split="remaining")

    assert relative_gap(synchronous[:1], frozen[:1]) < 1e-12
    assert relative_gap(synchronous[1:], frozen[1:]) > 1e-3


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(4)))
def test_order_of_replies_is_irrelevant(order):
    clients = [Edits.random(n, 7 + n) for n in (3, 1, 0, 5)]

    found, _ = merged([clients[i] for i in order])

    assert relative_gap(found, merged(clients)[0]) < 1e-12


def test_rounds_add_up_and_start_from_the_model_of_the_round_before():
    edits = Edits.random(8, 3)

    two_rounds, server = merged([edits], num_rounds=2)

    first = pooled_deltas(edits, "synchronous", "remaining")
    assert relative_gap(two_rounds, first) > 1e-3
    norms = [report.residual_norm_before for report in server.reports]
    assert norms[1] < norms[0]


def test_float32_on_the_wire_costs_no_more_than_its_rounding():
    clients = [Edits.random(5, seed) for seed in range(4)]

    found, _ = merged(clients, wire_dtype="float32")

    assert 0 < relative_gap(found, merged(clients)[0]) < 1e-5


def test_round_report_counts_edits_bytes_and_clients():
    clients = [Edits.random(n, n) for n in (2, 0, 3)]

    _, server = merged(clients, form="dense")

    report = server.reports[-1]
    triangle = D_KEY * (D_KEY + 1) // 2
    payload = 3 * 3 * 8 * (triangle + D_VALUE * D_KEY)
    assert (report.num_edits, report.num_clients) == (5, 3)
    assert payload < report.upload_bytes < payload + 3 * 3 * 2 * 200
    assert set(report.seconds) == {"exchange", "solve", "targets", "measure"}


def replace_array(reply: Message, make) -> Message:
    record = reply.content.array_records[ARRAYS]
    key = next(iter(record))
    arrays = {**record, key: Array(make(record[key].numpy()))}
    reply.content[ARRAYS] = ArrayRecord(arrays)
    return reply


def set_config(reply: Message, key: str, value: str) -> Message:
    reply.content.config_records[CONFIG][key] = value
    return reply


def set_edits(reply: Message, value: int) -> Message:
    reply.content.metric_records[METRICS][NUM_EDITS] = value
    return reply


def without_metrics(reply: Message) -> Message:
    del reply.content[METRICS]
    return reply


BAD_REPLIES = {
    "not finite": lambda r: replace_array(r, lambda a: a * float("nan")),
    "has shape": lambda r: replace_array(r, lambda a: a[:-1]),
    "expected float32 or float64": lambda r: replace_array(
        r, lambda a: a.astype("float16")
    ),
    "Expected fingerprint": lambda r: set_config(r, "fingerprint", "other"),
    "Expected schema-version": lambda r: set_config(r, "schema-version", "0"),
    "Expected round-id": lambda r: set_config(r, "round-id", "other"),
    "expected a count": lambda r: set_edits(r, -1),
    "has rank 4 for only 2 edits": lambda r: set_edits(r, 2),
    "Expected the records": without_metrics,
}


@pytest.mark.parametrize("reason", BAD_REPLIES)
def test_a_bad_reply_is_left_out_with_its_reason_and_costs_nobody_else(reason):
    clients = [Edits.random(4, seed) for seed in range(3)]

    def tamper(index: int, reply: Message) -> Message:
        return BAD_REPLIES[reason](reply) if index == 1 else reply

    found, server = merged(
        clients, app=client_app(clients, tamper), min_replies=2, num_rounds=1
    )

    good = [clients[0], clients[2]]
    assert relative_gap(found, merged(good)[0]) < 1e-12
    (why,) = set(server.reports[-1].dropped.values())
    assert reason in why


def test_a_client_that_raises_is_left_out_with_its_reason():
    clients = [Edits.random(4, seed) for seed in range(3)]

    def tamper(index: int, reply: Message) -> Message:
        if index == 1:
            raise MemoryError("out of memory")
        return reply

    _, server = merged(clients, app=client_app(clients, tamper), min_replies=2)

    (why,) = server.reports[-1].dropped.values()
    assert "out of memory" in why


def test_too_few_valid_replies_fail_loudly_and_name_the_client():
    clients = [Edits.random(4, seed) for seed in range(2)]

    def tamper(index: int, reply: Message) -> Message:
        return BAD_REPLIES["not finite"](reply) if index == 1 else reply

    with pytest.raises(AggregationError, match=r"at least 2 valid.*found 1.*finite"):
        merged(clients, app=client_app(clients, tamper))


def test_a_reply_above_the_norm_bound_is_left_out():
    clients = [Edits.random(4, 0), Edits.random(4, 1)]
    clients[1] = Edits(clients[1].seeds, clients[1].goals * 1e6)

    _, server = merged(clients, max_norm=1e3, min_replies=1)

    assert "exceeds the bound" in next(iter(server.reports[-1].dropped.values()))


def test_a_gram_with_a_negative_eigenvalue_is_left_out():
    clients = [Edits.random(4, 0), Edits.random(4, 1)]

    def tamper(index: int, reply: Message) -> Message:
        return replace_array(reply, lambda a: -a) if index == 1 else reply

    _, server = merged(
        clients, app=client_app(clients, tamper), form="dense", min_replies=1
    )

    assert "semidefinite" in next(iter(server.reports[-1].dropped.values()))


def test_every_client_is_sent_the_same_instruction_and_all_settings():
    seen: list[Message] = []
    clients = [Edits.random(4, seed) for seed in range(3)]

    merged(clients, app=client_app(clients, seen=seen), form="dense")

    per_exchange = [dict(m.content.config_records[CONFIG]) for m in seen]
    assert len(seen) == 9
    assert per_exchange[0] == per_exchange[1] == per_exchange[2]
    assert per_exchange[0]["measured"] == "layer.0"
    assert per_exchange[0]["form"] == "dense"
    assert len({config["round-id"] for config in per_exchange}) == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"layer_schedule": "synchronos"}, "synchronous"),
        ({"residual_split": "uniform"}, "must be 'remaining'"),
        ({"min_replies": 0}, "at least 1"),
    ],
)
def test_wrong_options_are_refused_with_a_remedy(options, text):
    with pytest.raises(ConfigurationError, match=text):
        strategy(2, **options)


def test_a_missing_or_foreign_second_moment_is_refused():
    priors = ridge_priors(second_moments(), 1.0)
    priors["layer.1"] = RidgePrior(torch.eye(3))

    with pytest.raises(SecondMomentError, match=r"layer.1.*width 3"):
        CollabEditStrategy(MODEL, priors, hyperparameters="{}", contexts="[]")
    del priors["layer.1"]
    with pytest.raises(SecondMomentError, match=r"layer.1.*none"):
        CollabEditStrategy(MODEL, priors, hyperparameters="{}", contexts="[]")


def test_a_weight_that_is_not_positive_is_refused():
    with pytest.raises(ConfigurationError, match="second_moment_weight > 0"):
        ridge_priors(second_moments(), 0.0)
