"""A round with a client that refuses to upload so few edits."""

import pytest
from federating import CASES, CONTEXTS, MEMIT, SERVER, make_grid
from flwr.serverapp.exception import AggregationError

from flwr_collabedit.algebra.priors import ridge_priors
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.messages.payloads import read_deltas
from flwr_collabedit.models.fingerprint import describe
from flwr_collabedit.strategies import CollabEditStrategy

# In the first round client 0 has two edits, client 2 one, the other two none.
ONE_EDIT = "client-2"


def server(lm, moments, **options):
    return CollabEditStrategy(
        describe(lm, MEMIT.layers),
        ridge_priors(moments, MEMIT.second_moment_weight),
        **{**SERVER, "wire_dtype": "float64", "evaluate": False, **options},
    )


@pytest.mark.parametrize("schedule", ["synchronous", "frozen"])
def test_the_round_goes_on_as_if_the_client_had_no_edits(
    lm, moments, tmp_path, schedule
):
    strategy = server(lm, moments, layer_schedule=schedule, min_replies=3)
    grid = make_grid(lm, tmp_path, min_edits_per_upload=2)

    result = strategy.start(grid, num_rounds=1)

    found = read_deltas(result.arrays, strategy.model)
    requests = [case.request for case in CASES[:2]]
    editor = MemitEditor(lm, MEMIT, CONTEXTS, moments)
    expected = editor.edit(requests, layer_schedule=schedule).deltas
    for name, delta in expected.items():
        assert (found[name] - delta).norm() / delta.norm() < 1e-9
    (report,) = strategy.reports
    assert report.num_edits == 2
    (reason,) = report.dropped.values()
    assert f"Client '{ONE_EDIT}'" in reason
    assert "at least 2 edits" in reason
    facts = [c.request for c in CASES]
    words = [word for r in facts for word in (r.subject, r.target_new)]
    assert not any(word in reason for word in words)


def test_a_round_that_needs_the_client_fails_and_says_why(lm, moments, tmp_path):
    grid = make_grid(lm, tmp_path, min_edits_per_upload=2)

    with pytest.raises(AggregationError, match=r"found 3.*at least 2 edits"):
        server(lm, moments).start(grid, num_rounds=1)
