"""Replies as a broken or hostile client would send them: each is not what was asked."""

import random
from collections.abc import Callable, Mapping
from io import BytesIO

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from flwr_collabedit.messages.payloads import (
    ARRAYS,
    CONFIG,
    METRICS,
    NUM_EDITS,
    RESIDUAL_SQUARE,
    SENDER,
)

Damage = Callable[[RecordDict, random.Random], RecordDict]


def damaged(content: RecordDict, rng: random.Random) -> RecordDict:
    """Return a copy of a good reply with one thing wrong that decides on its worth."""
    return rng.choice(list(DAMAGES.values()))(content, rng)


def with_arrays(content: RecordDict, arrays: Mapping[str, Array]) -> RecordDict:
    return _copy(content, **{ARRAYS: ArrayRecord(dict(arrays))})


def change_array(
    content: RecordDict, rng: random.Random, change: Callable[[np.ndarray], np.ndarray]
) -> RecordDict:
    arrays = dict(content.array_records[ARRAYS])
    key = rng.choice(sorted(arrays))
    arrays[key] = Array(np.ascontiguousarray(change(arrays[key].numpy())))
    return with_arrays(content, arrays)


def change_bytes(
    content: RecordDict, rng: random.Random, change: Callable[[bytes], bytes]
) -> RecordDict:
    arrays = dict(content.array_records[ARRAYS])
    key = rng.choice(sorted(arrays))
    old = arrays[key]
    data = change(bytes(old.data))
    arrays[key] = Array(dtype=old.dtype, shape=old.shape, stype=old.stype, data=data)
    return with_arrays(content, arrays)


def _copy(content: RecordDict, **records: object) -> RecordDict:
    return RecordDict({**dict(content), **records})


def _header(shape: object, descr: str = "<f8") -> bytes:
    text = repr({"descr": descr, "fortran_order": False, "shape": shape})
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def _garbage(content: RecordDict, rng: random.Random) -> RecordDict:
    return change_bytes(content, rng, lambda _: rng.randbytes(rng.randrange(300)))


def _cut(content: RecordDict, rng: random.Random) -> RecordDict:
    return change_bytes(content, rng, lambda data: data[: rng.randrange(len(data))])


def _longer(content: RecordDict, rng: random.Random) -> RecordDict:
    return change_bytes(content, rng, lambda data: data + rng.randbytes(8))


def _giant_claim(content: RecordDict, rng: random.Random) -> RecordDict:
    shape = rng.choice([(10**12,), (10**6, 10**6), (-1, 5), (2**63, 2), ("x",), 7])
    return change_bytes(content, rng, lambda _: _header(shape) + bytes(64))


def _objects(content: RecordDict, rng: random.Random) -> RecordDict:
    buffer = BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return change_bytes(content, rng, lambda _: buffer.getvalue())


def _not_finite(content: RecordDict, rng: random.Random) -> RecordDict:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array.flat[rng.randrange(array.size)] = rng.choice([np.nan, np.inf, -np.inf])
        return array

    return change_array(content, rng, change)


def _other_shape(content: RecordDict, rng: random.Random) -> RecordDict:
    changes = [
        lambda a: a[:-1],
        lambda a: a[None],
        lambda a: np.vstack([a, a]),
        lambda a: a[..., None],
        lambda a: np.zeros((0, *a.shape[1:])),
    ]
    return change_array(content, rng, rng.choice(changes))


def _other_dtype(content: RecordDict, rng: random.Random) -> RecordDict:
    dtype = rng.choice(["float16", "int32", "bool", "complex64", "S4", "uint8"])
    return change_array(content, rng, lambda a: np.ones(a.shape).astype(dtype))


def _other_keys(content: RecordDict, rng: random.Random) -> RecordDict:
    arrays = dict(content.array_records[ARRAYS])
    first = next(iter(arrays))
    choices = [
        {f"{key}x": value for key, value in arrays.items()},
        dict(reversed(arrays.items())),
        {**arrays, "more": arrays[first]},
        {key: value for key, value in arrays.items() if key != first},
        {},
    ]
    return with_arrays(content, rng.choice(choices))


def _no_record(content: RecordDict, rng: random.Random) -> RecordDict:
    gone = rng.choice([ARRAYS, METRICS, CONFIG])
    return RecordDict({name: one for name, one in content.items() if name != gone})


def _swapped_records(content: RecordDict, rng: random.Random) -> RecordDict:
    other = rng.choice([MetricRecord({"a": 1}), ConfigRecord({"a": "b"})])
    return _copy(content, **{ARRAYS: other})


def _other_config(content: RecordDict, rng: random.Random) -> RecordDict:
    config = ConfigRecord(dict(content.config_records[CONFIG]))
    key = rng.choice(sorted(set(config) - {SENDER}))
    config[key] = rng.choice(["", "x" * 500, 7, 0.5, True, b"\xff", ["a", "b"], "NaN"])
    return _copy(content, **{CONFIG: config})


def _other_sender(content: RecordDict, rng: random.Random) -> RecordDict:
    config = ConfigRecord(dict(content.config_records[CONFIG]))
    config[SENDER] = rng.choice(["", "x" * 10_000, 3, True, ["a"], b"name"])
    return _copy(content, **{CONFIG: config})


def _taken_name(content: RecordDict, rng: random.Random) -> RecordDict:
    config = ConfigRecord(dict(content.config_records[CONFIG]))
    config[SENDER] = "client-0"
    return _copy(content, **{CONFIG: config})


def _other_count(content: RecordDict, rng: random.Random) -> RecordDict:
    return _metric(
        content, NUM_EDITS, rng.choice([-1, -(2**40), 0, 1, 2.5, [4], 1e300])
    )


def _other_figure(content: RecordDict, rng: random.Random) -> RecordDict:
    values = [float("nan"), float("inf"), -1.0, [1.0], -(2**50)]
    return _metric(content, RESIDUAL_SQUARE, rng.choice(values))


def _metric(content: RecordDict, key: str, value: object) -> RecordDict:
    metrics = MetricRecord(dict(content.metric_records[METRICS]))
    metrics[key] = value
    return _copy(content, **{METRICS: metrics})


DAMAGES: dict[str, Damage] = {
    "garbage bytes": _garbage,
    "bytes cut off": _cut,
    "bytes appended": _longer,
    "claim of a giant array": _giant_claim,
    "pickled objects": _objects,
    "NaN or infinity": _not_finite,
    "wrong shape": _other_shape,
    "wrong dtype": _other_dtype,
    "wrong arrays": _other_keys,
    "a record missing": _no_record,
    "a record of another kind": _swapped_records,
    "another model, round or schedule": _other_config,
    "no usable name": _other_sender,
    "another client's name": _taken_name,
    "forged number of edits": _other_count,
    "forged figures": _other_figure,
}
