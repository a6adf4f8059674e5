"""Far larger replies than the others' are left out; the others' sum keeps its bits."""

import pytest
import torch
from federation import MODEL, Edits, client_app, strategy
from hypothesis import given
from hypothesis import strategies as st

from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.messages.payloads import read_deltas
from flwr_collabedit.strategies import TaskArithmetic
from flwr_collabedit.strategies.size_bound import SizeBound
from simulations.in_process import InProcessGrid

HONEST = [Edits.random(3, seed) for seed in range(4)]
TEN_TIMES = Edits(HONEST[0].seeds, 10 * Edits.random(3, 9).goals)


def merged(clients, kind=None, rounds=1, **options):
    server = strategy(len(clients), kind, min_replies=1, **options)
    grid = InProcessGrid(client_app(clients), len(clients))
    result = server.start(grid, num_rounds=rounds)
    return read_deltas(result.arrays, MODEL), server


@pytest.mark.parametrize("form", ["factors", "dense"])
@pytest.mark.parametrize("schedule", ["synchronous", "frozen", "local"])
def test_a_reply_ten_times_too_large_is_left_out(schedule, form):
    options = {"layer_schedule": schedule, "form": form}
    expected, _ = merged(HONEST, **options)

    found, server = merged([*HONEST, TEN_TIMES], **options)

    (reason,) = server.reports[-1].dropped.values()
    assert "times the clients' median" in reason
    for name in MODEL.parameters:
        assert torch.equal(found[name], expected[name])


def test_deltas_are_held_to_it_too():
    expected, _ = merged(HONEST, TaskArithmetic)

    found, server = merged([*HONEST, TEN_TIMES], TaskArithmetic)

    assert "delta of" in next(iter(server.reports[-1].dropped.values()))
    for name in MODEL.parameters:
        assert torch.equal(found[name], expected[name])


def test_without_a_factor_any_size_is_taken():
    _, server = merged([*HONEST, TEN_TIMES], size_factor=None)

    assert not server.reports[-1].dropped


def test_who_has_many_edits_is_not_too_large():
    _, server = merged([*HONEST, Edits.random(300, 5)])

    assert not server.reports[-1].dropped


def test_who_brings_a_new_fact_where_others_repeat_theirs_is_not_too_large():
    """Repeated facts leave residuals near zero; the first round's median counts."""
    fresh = [*HONEST, [HONEST[0], TEN_TIMES.take([0])]]
    fresh[-1][1] = Edits(fresh[-1][1].seeds, Edits.random(1, 11).goals)

    _, server = merged(fresh, rounds=2, sweeps=4)

    assert not any(report.dropped for report in server.reports)


def test_two_clients_have_no_median():
    bound = SizeBound().after({"a": {"residuals": 1.0}, "b": {"residuals": 100.0}})

    assert bound.medians == {}
    assert bound.reason({"residuals": 1e9}, 8.0) == ""


@given(
    honest=st.lists(st.floats(1.0, 2.0), min_size=3, max_size=9),
    data=st.data(),
)
def test_a_minority_cannot_move_the_bound_far(honest, data):
    """At most half of the values are below the low median, at least half at most it.

    So a minority can lift it to the largest honest value; what it lowers is only where
    a round's bound begins, since the median of an earlier round holds on.
    """
    hostile = data.draw(
        st.lists(st.floats(0.0, 1e30), min_size=0, max_size=(len(honest) - 1) // 2)
    )
    replies = {str(i): {"x": v} for i, v in enumerate([*honest, *hostile])}

    found = SizeBound().after(replies)

    assert found.medians["x"] <= max(honest)
    seen_before = SizeBound({"x": min(honest)}).after(replies)
    assert min(honest) <= seen_before.medians["x"] <= max(honest)
    assert not any(seen_before.reason({"x": value}, 8.0) for value in honest)


def test_a_factor_that_would_refuse_the_median_itself_is_refused():
    with pytest.raises(ConfigurationError, match="size_factor above 1"):
        strategy(2, size_factor=1.0)
