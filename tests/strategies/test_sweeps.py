"""Proximal sweeps in a federation: merged equals pooled, whatever their number."""

from itertools import pairwise

import pytest
from federation import Edits, client_app, pooled_deltas, strategy
from flwr.app import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from test_collab_edit import SPLITS, merged, relative_gap

from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.messages.payloads import CONFIG


@settings(max_examples=15, deadline=None)
@given(
    owners=st.lists(st.integers(0, 3), min_size=1, max_size=20),
    schedule=st.sampled_from(sorted(SPLITS)),
    form=st.sampled_from(["factors", "dense"]),
    sweeps=st.integers(2, 4),
    seed=st.integers(0, 1000),
)
def test_merged_sweeps_equal_pooled_sweeps(owners, schedule, form, sweeps, seed):
    edits = Edits.random(len(owners), seed)
    clients = [
        edits.take([i for i, owner in enumerate(owners) if owner == client])
        for client in range(4)
    ]

    found, server = merged(clients, layer_schedule=schedule, form=form, sweeps=sweeps)

    expected = pooled_deltas(edits, schedule, SPLITS[schedule], sweeps)
    assert relative_gap(found, expected) < 1e-9
    assert len(server.reports[-1].sweep_residual_norms) == sweeps


def test_a_later_rounds_sweeps_are_held_back_by_that_rounds_delta_alone():
    edits = Edits.random(8, 3)

    found, _ = merged([edits], num_rounds=2, sweeps=3)

    first = pooled_deltas(edits, "synchronous", "remaining", 3)
    second = pooled_deltas(edits, "synchronous", "remaining", 3, start=first)
    assert relative_gap(found, second) < 1e-9


@pytest.mark.parametrize("schedule", sorted(SPLITS))
def test_the_report_holds_the_residual_at_the_start_of_every_sweep(schedule):
    clients = [Edits.random(5, 1), Edits.random(4, 2)]
    after_one, _ = merged(clients, layer_schedule=schedule)

    _, server = merged(clients, layer_schedule=schedule, sweeps=2)

    report = server.reports[-1]
    start = sum(float(c.goals.square().sum()) for c in clients) ** 0.5
    left = sum(float(c.measure(0, after_one)[1].square().sum()) for c in clients) ** 0.5
    assert report.sweep_residual_norms == pytest.approx([start, left])
    assert report.residual_norm_before == pytest.approx(start)
    assert (report.num_edits, report.num_clients) == (9, 2)


def test_sweeps_stop_when_the_residual_hardly_changes():
    clients = [Edits.random(5, 1), Edits.random(4, 2)]
    _, all_of_them = merged(clients, sweeps=9)
    norms = all_of_them.reports[-1].sweep_residual_norms
    changes = [abs(a - b) / a for a, b in pairwise(norms)]
    assert len(changes) == 8
    assert changes[3] < changes[2]

    _, stopped = merged(clients, sweeps=9, sweep_tolerance=changes[3] * 1.001)

    found = stopped.reports[-1].sweep_residual_norms
    assert found == pytest.approx(norms[:5])


def test_every_exchange_of_all_sweeps_carries_the_same_round_id():
    seen: list[Message] = []
    clients = [Edits.random(3, 0)]

    merged(clients, app=client_app(clients, seen=seen), sweeps=2)

    configs = [message.content.config_records[CONFIG] for message in seen]
    assert [c["measured"] for c in configs] == ["layer.0", "layer.1", "layer.2"] * 2
    assert len({c["round-id"] for c in configs}) == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"layer_schedule": "frozen", "residual_split": "remaining", "sweeps": 2},
            "diverge.*'uniform'",
        ),
        ({"sweeps": 0}, "at least 1"),
        ({"sweep_tolerance": -0.1}, "tolerance"),
    ],
)
def test_sweeps_that_cannot_work_are_refused_with_a_remedy(options, text):
    with pytest.raises(ConfigurationError, match=text):
        strategy(2, **options)
