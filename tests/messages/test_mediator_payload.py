"""Mediator vectors on the wire: pinned keys, a round trip, nothing wrong gets in."""

import numpy as np
import pytest
import torch

from flwr_collabedit.algebra.mediator import MediatorVectors
from flwr_collabedit.errors import PayloadError
from flwr_collabedit.messages.mediator_payload import (
    no_vectors,
    pack_vectors,
    unpack_vectors,
    vectors_record,
)

SHAPES = {"a": (2, 3), "b": (2, 5)}


@pytest.fixture
def vectors() -> MediatorVectors:
    generator = torch.Generator().manual_seed(0)
    z, delta = torch.randn(2, 4, 2, generator=generator).double()
    keys = {
        name: torch.randn(d_key, 4, generator=generator).double()
        for name, (_, d_key) in SHAPES.items()
    }
    return MediatorVectors(z, delta, keys, torch.tensor([3, 0, 25, 7]))


def test_keys_and_dtypes_are_those_of_the_documentation(vectors):
    record = vectors_record(vectors, ["a", "b"], "float32")

    found = {key: (array.dtype, array.shape) for key, array in record.items()}
    assert found == {
        "mkv_z": ("float32", (4, 2)),
        "mkv_delta": ("float32", (4, 2)),
        "mkv_steps": ("int64", (4,)),
        "a/mkv_key": ("float32", (3, 4)),
        "b/mkv_key": ("float32", (5, 4)),
    }


@pytest.mark.parametrize("count", [0, 4])
def test_what_is_sent_arrives(vectors, count):
    sent = vectors.take(torch.arange(count))

    found = unpack_vectors(pack_vectors(sent, "float64"), SHAPES, count)

    assert torch.equal(found.z, sent.z)
    assert torch.equal(found.delta, sent.delta)
    assert torch.equal(found.gradient_steps, sent.gradient_steps)
    assert all(torch.equal(found.keys[name], sent.keys[name]) for name in SHAPES)


def test_no_vectors_travel_too():
    assert len(unpack_vectors(pack_vectors(no_vectors(SHAPES), "float32"), SHAPES)) == 0


def spoiled(index, change):
    def spoil(arrays):
        arrays[index] = change(arrays[index])

    return spoil


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda arrays: arrays.pop(), "Expected 5 arrays"),
        (spoiled(0, lambda a: a[:, :1]), "mkv_z has shape"),
        (spoiled(0, lambda a: a[:3]), "mkv_z has shape"),
        (spoiled(1, lambda a: a * np.nan), "mkv_delta holds values"),
        (spoiled(1, lambda a: a.astype(np.int64)), "mkv_delta is int64"),
        (spoiled(2, lambda a: a - 1), "mkv_steps"),
        (spoiled(2, lambda a: a.astype(np.float32)), "mkv_steps is float32"),
        (spoiled(3, lambda a: a.T), "a/mkv_key has shape"),
        (spoiled(4, lambda a: a * np.inf), "b/mkv_key holds values"),
    ],
)
def test_wrong_arrays_are_refused_by_name(vectors, spoil, reason):
    arrays = pack_vectors(vectors, "float64")
    spoil(arrays)

    with pytest.raises(PayloadError, match=reason):
        unpack_vectors(arrays, SHAPES, 4)
