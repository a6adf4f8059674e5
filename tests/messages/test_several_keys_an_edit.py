"""Editors that measure every token of an answer send more keys than edits."""

import numpy as np
import pytest

from flwr_collabedit.errors import PayloadError
from flwr_collabedit.messages.payloads import unpack_statistics

SHAPE = (2, 3)


def unpacked(rank, num_edits, **options):
    parts = [np.ones((3, rank)), np.ones((2, rank))]
    return unpack_statistics(parts, "factors", SHAPE, num_edits, **options)


def test_more_keys_than_edits_are_taken_only_where_there_can_be():
    assert unpacked(3, 1, one_key_an_edit=False).rank == 3
    with pytest.raises(PayloadError, match="rank 3 for only 1"):
        unpacked(3, 1)


@pytest.mark.parametrize(("rank", "num_edits"), [(4, 1), (1, 0)])
def test_never_more_than_the_width_nor_any_for_no_edit(rank, num_edits):
    with pytest.raises(PayloadError, match=f"rank {rank} for only {num_edits}"):
        unpacked(rank, num_edits, one_key_an_edit=False)
