"""Every text is in one batch, with texts of its length."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.evaluation.batches import batches_by_length


@given(st.lists(st.integers(1, 50)), st.integers(1, 7))
def test_batches_hold_every_index_once_shortest_first(lengths, batch_size):
    batches = list(batches_by_length(lengths, batch_size))

    flat = [index for batch in batches for index in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[index] for index in flat] == sorted(lengths)
    assert all(len(batch) == batch_size for batch in batches[:-1])


def test_progress_is_reported_once_a_batch_is_done():
    reports = []

    batches = batches_by_length([3, 1, 2], 2, lambda *report: reports.append(report))

    assert next(batches) == [1, 2]
    assert reports == []
    assert next(batches) == [0]
    assert reports == [(2, 3)]
    assert list(batches) == []
    assert reports == [(2, 3), (3, 3)]


def test_a_batch_of_no_texts_is_refused():
    with pytest.raises(ConfigurationError, match="batch_size: expected at least 1"):
        list(batches_by_length([1], 0))
