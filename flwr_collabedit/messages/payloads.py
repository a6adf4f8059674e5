"""How edit statistics and deltas travel in a Flower message.

With `flwr_collabedit.messages.replies`, which checks what arrives, the only module that
knows keys, forms and dtypes on the wire. ``docs/payload_format.md`` pins them, and so
does a test. Every reply holds one record of each kind:

- ``arrays``: ``<parameter>/<part>`` for each measured parameter;
- ``metrics``: numbers, among them ``num-examples``, the number of edits;
- ``config``: schema version, fingerprint, round, form and layer schedule.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Message
from numpy.typing import NDArray
from torch import Tensor

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.factors import SealedFactors, seal
from flwr_collabedit.algebra.matrices import (
    from_triangle,
    is_semidefinite,
    lower_triangle,
)
from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.errors import ConfigurationError, PayloadError, shorten
from flwr_collabedit.messages.instruction import Form, WireDtype

Arrays: TypeAlias = list[NDArray[np.generic]]

ARRAYS, METRICS, CONFIG = "arrays", "metrics", "config"
NUM_EDITS = "num-examples"
_LONGEST_NAME = 200
SENDER = "sender"
"""Key, in a reply's config record, of the client's name."""
RESIDUAL_SQUARE = "residual-square"
RE_EDIT_COUNTS = ("selected", "conflicts", "reused", "steps-saved")
"""Numbers in the reply to a re-edit: mediator vectors, and gradient steps."""
RECEIVED = "received/"
"""Begins the names of metrics over others' facts."""
INACTIVE = "inactive/"
"""Begins the names of metrics over edits that were left out or withdrawn."""

PARTS: dict[Form, tuple[str, ...]] = {
    "factors": ("key_factor", "residual_factor"),
    "dense": ("gram", "cross"),
    "delta": ("delta",),
}
MKV_PARTS = ("mkv_z", "mkv_delta", "mkv_steps")
"""Arrays of form ``mkv`` that are not of one parameter; ``mediator_payload`` has it."""


BASE = "base/"
"""Begins the names of metrics of the unedited model."""


def round_prefix(server_round: int) -> str:
    """Return what begins the names of metrics over one round's edits."""
    return f"round-{server_round}/"


def array_keys(parameters: Sequence[str], form: Form) -> list[str]:
    """Return the keys of a reply's arrays in the order in which a client lists them."""
    if form == "mkv":
        keys = [f"{name}/mkv_key" for name in parameters]
        return [*MKV_PARTS, *keys] if parameters else []
    return [f"{name}/{part}" for name in parameters for part in PARTS[form]]


def sender_of(reply: Message) -> str:
    """Return the name of the client that sent a reply.

    Raises
    ------
    PayloadError
        If it gives none.
    """
    config = reply.content.config_records.get(CONFIG)
    name = "" if config is None else config.get(SENDER, "")
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
        raise PayloadError(
            f"Expected the client's name under {SENDER!r}, 1 to {_LONGEST_NAME} "
            f"characters, found {shorten([name])[:80]}. Use the ClientApp of "
            "flwr_collabedit."
        )
    return name


def num_edits_of(reply: Message) -> int:
    """Return the number of edits that a checked reply stands for."""
    return int(reply.content.metric_records[METRICS][NUM_EDITS])  # type: ignore[arg-type]


def to_record(
    keys: Sequence[str], arrays: Sequence[NDArray[np.generic]]
) -> ArrayRecord:
    """Return arrays under their keys, ready to travel."""
    return ArrayRecord(
        {key: Array(array) for key, array in zip(keys, arrays, strict=True)}
    )


def record_bytes(record: ArrayRecord) -> int:
    """Return the number of bytes that the record's arrays take in a message."""
    return sum(len(array.data) for array in record.values())


def pack_deltas(deltas: Mapping[str, Tensor], dtype: WireDtype) -> ArrayRecord:
    """Return cumulative deltas ``(d_value, d_key)`` as the server sends them."""
    arrays = [delta.numpy(force=True).astype(dtype) for delta in deltas.values()]
    return to_record([f"{name}/delta" for name in deltas], arrays)


def read_deltas(record: ArrayRecord, model: EditedModel) -> dict[str, Tensor]:
    """Return the deltas of a record by parameter, float64, after checking its keys."""
    expected = [f"{name}/delta" for name in model.parameters]
    if list(record) != expected:
        raise PayloadError(
            f"Expected deltas {shorten(expected)}, found {shorten(record)}. Use the "
            "same edited layers on server and clients."
        )
    return unpack_deltas([array.numpy() for array in record.values()], model)


def unpack_deltas(
    arrays: Sequence[NDArray[np.generic]], model: EditedModel
) -> dict[str, Tensor]:
    """Return the deltas of a message by parameter, float64, after checking shapes."""
    found = [tuple(array.shape) for array in arrays]
    if found != list(model.shapes.values()):
        raise PayloadError(
            f"Expected deltas of shapes {shorten(model.shapes.values())} for "
            f"{shorten(model.parameters)}, found {shorten(found)}. Use the same model "
            "and the same edited layers on server and clients."
        )
    return {
        name: _float64(array)
        for name, array in zip(model.parameters, arrays, strict=True)
    }


def digest(record: ArrayRecord) -> str:
    """Return a short hash of the record's keys and contents."""
    sha = hashlib.sha256()
    for key, array in record.items():
        sha.update(key.encode())
        sha.update(array.data)
    return sha.hexdigest()[:16]


def pack_statistics(
    keys: Tensor, residuals: Tensor, form: Form, dtype: WireDtype
) -> Arrays:
    """Return one parameter's statistics in the order of ``PARTS[form]``.

    Parameters
    ----------
    keys, residuals : Tensor
        ``(d_key, n)`` and ``(d_value, n)``, float64.
    form : {"factors", "dense"}
        ``factors`` sends ``(d_key + d_value) * rank`` numbers; ``dense`` the triangle
        of ``K K^T`` row by row and all of ``R K^T``.
    """
    if form == "factors":
        sealed = seal(keys, residuals)
        parts = (sealed.key_factor, sealed.residual_factor)
    elif form == "dense":
        statistics = EditStatistics.from_pairs(keys, residuals)
        parts = (lower_triangle(statistics.gram), statistics.cross)
    else:
        raise ConfigurationError(
            f"Expected form 'factors' or 'dense' for statistics, found {form!r}."
        )
    return [part.numpy(force=True).astype(dtype) for part in parts]


def pack_delta(delta: Tensor, dtype: WireDtype) -> Arrays:
    """Return one parameter's solved delta, the only part of form ``delta``."""
    return [delta.numpy(force=True).astype(dtype)]


def unpack_delta(
    parts: Sequence[NDArray[np.generic]], shape: tuple[int, int], num_edits: int
) -> Tensor:
    """Return a client's delta, ``shape = (d_value, d_key)``, float64, once checked.

    Raises
    ------
    PayloadError
        If the shape is another, a value is not finite, or no edit stands behind it.
    """
    (array,) = parts
    _check_array("delta", array, shape)
    if num_edits == 0 and array.any():
        raise PayloadError("delta is not zero, but stands for no edit.")
    return _float64(array)


def unpack_statistics(
    parts: Sequence[NDArray[np.generic]],
    form: Form,
    shape: tuple[int, int],
    num_edits: int,
    *,
    one_key_an_edit: bool = True,
) -> EditStatistics | SealedFactors:
    """Return what the parts stand for: factors as they came, or the two matrices.

    Parameters
    ----------
    parts, form
        As `pack_statistics` gives them.
    shape : (int, int)
        ``(d_value, d_key)``.
    num_edits : int
        That they stand for.
    one_key_an_edit : bool
        Whether the keys can have no more columns; an editor that measures every token
        of an answer has more.

    Raises
    ------
    PayloadError
        If a shape is not the one that ``shape`` asks for, a value is not finite, a
        factor has more columns than it may, or the gram is not positive semidefinite
        to the precision it travelled in.
    """
    first, second = parts
    d_value, d_key = shape
    rank = first.shape[-1] if first.ndim == 2 else -1
    expected: list[tuple[int, ...]] = [(d_key, rank), (d_value, rank)]
    if form == "dense":
        expected = [(d_key * (d_key + 1) // 2,), (d_value, d_key)]
    for part, array, wanted in zip(PARTS[form], parts, expected, strict=True):
        _check_array(part, array, wanted)
    if form == "factors":
        if rank > num_edits and (one_key_an_edit or num_edits == 0 or rank > d_key):
            raise PayloadError(
                f"key_factor has rank {rank} for only {num_edits} edits."
            )
        return SealedFactors(_tensor(first), _tensor(second), num_edits)
    if num_edits == 0 and (first.any() or second.any()):
        raise PayloadError("gram and cross are not zero, but stand for no edit.")
    gram = from_triangle(_float64(first), d_key)
    if not is_semidefinite(gram, torch.finfo(torch.from_numpy(first).dtype).eps):
        raise PayloadError("gram is not positive semidefinite.")
    return EditStatistics(gram, _float64(second), num_edits)


def _float64(array: NDArray[np.generic]) -> Tensor:
    return _tensor(array).double()


def _tensor(array: NDArray[np.generic]) -> Tensor:
    # A copy in torch's own, aligned memory: where a message's bytes happen to lie, BLAS
    # may take another path, which rounds differently from run to run.
    return torch.tensor(array)


def _check_array(part: str, array: NDArray[np.generic], shape: tuple[int, ...]) -> None:
    if array.dtype not in (np.float32, np.float64):
        raise PayloadError(f"{part} is {array.dtype}; expected float32 or float64.")
    if tuple(array.shape) != shape:
        raise PayloadError(f"{part} has shape {array.shape}; expected {shape}.")
    if not np.isfinite(array).all():
        raise PayloadError(f"{part} holds values that are not finite.")
