"""How mediator knowledge vectors travel in a Flower message, both ways.

``docs/payload_format.md`` pins keys and dtypes, and so does a test.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from flwr.app import ArrayRecord, RecordDict
from numpy.typing import NDArray
from torch import Tensor

from flwr_collabedit.algebra.mediator import MediatorVectors
from flwr_collabedit.errors import PayloadError
from flwr_collabedit.messages.array_reading import read_array
from flwr_collabedit.messages.instruction import Instruction, WireDtype
from flwr_collabedit.messages.payloads import Arrays, array_keys, to_record
from flwr_collabedit.messages.replies import NO_LIMITS, ReplyLimits, checked_records

Shapes = Mapping[str, tuple[int, int]]


def pack_vectors(vectors: MediatorVectors, dtype: WireDtype) -> Arrays:
    """Return ``z``, ``delta``, the gradient steps, then every weight's keys."""
    floats = [vectors.z, vectors.delta, *vectors.keys.values()]
    z, delta, *keys = (tensor.numpy(force=True).astype(dtype) for tensor in floats)
    return [z, delta, vectors.gradient_steps.numpy(force=True), *keys]


def vectors_record(
    vectors: MediatorVectors, parameters: Sequence[str], dtype: WireDtype
) -> ArrayRecord:
    """Return the vectors as the server sends them to a client."""
    return to_record(array_keys(parameters, "mkv"), pack_vectors(vectors, dtype))


def read_vectors_reply(
    content: RecordDict,
    instruction: Instruction,
    shapes: Shapes,
    limits: ReplyLimits = NO_LIMITS,
) -> MediatorVectors:
    """Return the vectors that a client has uploaded, after checking all of them.

    Raises
    ------
    PayloadError
        If a record is missing, the reply answers another instruction, slot or model,
        or its arrays fail `unpack_vectors` or exceed a limit.
    """
    record, num_edits = checked_records(content, instruction, limits)
    arrays = [read_array(key, array) for key, array in record.items()]
    vectors = unpack_vectors(arrays, shapes, num_edits)
    max_norm = limits.max_norm
    if max_norm is not None:
        norm = max(float(t.norm()) for t in (vectors.delta, *vectors.keys.values()))
        if norm > max_norm:
            raise PayloadError(f"norm {norm:.3g} exceeds the bound of {max_norm:.3g}.")
    return vectors


def unpack_vectors(
    arrays: Sequence[NDArray[np.generic]], shapes: Shapes, num_edits: int | None = None
) -> MediatorVectors:
    """Return the vectors of a message, float64, after checking shapes and values.

    Parameters
    ----------
    arrays : sequence of ndarray
        In the order of `pack_vectors`.
    shapes : mapping of str to (int, int)
        ``(d_value, d_key)`` of every edited weight.
    num_edits : int or None
        How many edits there must be; ``None`` takes the number of targets.

    Raises
    ------
    PayloadError
        If there are more or fewer arrays, a shape or dtype is another, a value is not
        finite or a number of steps is negative.
    """
    if len(arrays) != 3 + len(shapes):
        raise PayloadError(
            f"Expected {3 + len(shapes)} arrays of mediator vectors, found "
            f"{len(arrays)}. Use the same edited layers on server and clients."
        )
    z, delta, steps, *keys = arrays
    count = len(z) if num_edits is None else num_edits
    d_value = next(iter(shapes.values()))[0]
    for name, array in (("mkv_z", z), ("mkv_delta", delta)):
        _check(name, array, (count, d_value))
    for array, (name, (_, d_key)) in zip(keys, shapes.items(), strict=True):
        _check(f"{name}/mkv_key", array, (d_key, count))
    is_count = steps.dtype == np.int64 and steps.shape == (count,)
    if not is_count or (steps.astype(np.int64) < 0).any():
        raise PayloadError(
            f"mkv_steps is {steps.dtype} of shape {steps.shape}; expected {count} "
            "counts in int64."
        )
    return MediatorVectors(
        _float64(z),
        _float64(delta),
        {name: _float64(array) for name, array in zip(shapes, keys, strict=True)},
        torch.from_numpy(steps.copy()),
    )


def no_vectors(shapes: Shapes) -> MediatorVectors:
    """Return the vectors of no edits."""
    d_value = next(iter(shapes.values()))[0]
    none = torch.zeros(0, d_value, dtype=torch.float64)
    keys = {name: none.new_zeros(d_key, 0) for name, (_, d_key) in shapes.items()}
    return MediatorVectors(none, none, keys, torch.zeros(0, dtype=torch.int64))


def _check(name: str, array: NDArray[np.generic], shape: tuple[int, ...]) -> None:
    if array.dtype not in (np.float32, np.float64):
        raise PayloadError(f"{name} is {array.dtype}; expected float32 or float64.")
    if array.shape != shape:
        raise PayloadError(f"{name} has shape {array.shape}; expected {shape}.")
    if not np.isfinite(array).all():
        raise PayloadError(f"{name} holds values that are not finite.")


def _float64(array: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(array.astype(np.float64))
