"""How instructions and edit statistics travel in a Flower message.

The only module that knows keys, forms and dtypes on the wire.
``docs/payload_format.md`` pins them, and so does a test. Every reply holds one record
of each kind:

- ``arrays``: ``<parameter>/<part>`` for each measured parameter;
- ``metrics``: numbers, among them ``num-examples``, the number of edits;
- ``config``: schema version, fingerprint, round, form and layer schedule.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, RecordDict
from numpy.typing import NDArray
from torch import Tensor

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.factors import SealedFactors, seal
from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.errors import ConfigurationError, PayloadError, shorten
from flwr_collabedit.evaluation.metrics import MetricSums
from flwr_collabedit.instruction import Form, Instruction, WireDtype

ARRAYS, METRICS, CONFIG = "arrays", "metrics", "config"
NUM_EDITS = "num-examples"
RESIDUAL_SQUARE = "residual-square"

PARTS: dict[Form, tuple[str, str]] = {
    "factors": ("key_factor", "residual_factor"),
    "dense": ("gram", "cross"),
}


def array_keys(parameters: Sequence[str], form: Form) -> list[str]:
    """Return the keys of a reply's arrays in the order in which a client lists them."""
    return [f"{name}/{part}" for name in parameters for part in PARTS[form]]


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
) -> list[NDArray[np.generic]]:
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
        parts = (_triangle(statistics.gram), statistics.cross)
    else:
        raise ConfigurationError(
            f"Unknown form {form!r}; expected one of {list(PARTS)}."
        )
    return [part.numpy(force=True).astype(dtype) for part in parts]


def unpack_statistics(
    parts: Sequence[NDArray[np.generic]],
    form: Form,
    shape: tuple[int, int],
    num_edits: int,
) -> EditStatistics:
    """Return the statistics, float64, that the parts stand for.

    Raises
    ------
    PayloadError
        If a shape is not the one that ``shape = (d_value, d_key)`` asks for, a value is
        not finite, a factor has more columns than there are edits, or the gram is not
        positive semidefinite to the precision it travelled in.
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
        if rank > num_edits:
            raise PayloadError(
                f"key_factor has rank {rank} for only {num_edits} edits."
            )
        return SealedFactors(_float64(first), _float64(second), num_edits).statistics()
    gram = _square(_float64(first), d_key)
    _check_semidefinite(gram, torch.finfo(torch.from_numpy(first).dtype).eps)
    return EditStatistics(gram, _float64(second), num_edits)


def _float64(array: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(array.astype(np.float64))


def _check_array(part: str, array: NDArray[np.generic], shape: tuple[int, ...]) -> None:
    if array.dtype not in (np.float32, np.float64):
        raise PayloadError(f"{part} is {array.dtype}; expected float32 or float64.")
    if tuple(array.shape) != shape:
        raise PayloadError(f"{part} has shape {array.shape}; expected {shape}.")
    if not np.isfinite(array).all():
        raise PayloadError(f"{part} holds values that are not finite.")


def _check_semidefinite(gram: Tensor, eps: float) -> None:
    # Rounding on the wire moves an eigenvalue by at most d_key * eps * max diagonal.
    slack = 4 * len(gram) * eps * gram.diagonal().max().clamp(min=0)
    shifted = gram.clone()
    shifted.diagonal().add_(slack + torch.finfo(gram.dtype).tiny)
    if torch.linalg.cholesky_ex(shifted).info.item() != 0:
        raise PayloadError("gram is not positive semidefinite.")


def _triangle(square: Tensor) -> Tensor:
    # Row by row: index arrays would need twice the memory of the matrix itself.
    return torch.cat([square[row, : row + 1] for row in range(len(square))])


def _square(triangle: Tensor, size: int) -> Tensor:
    square = triangle.new_zeros(size, size)
    for row in range(size):
        start = row * (row + 1) // 2
        square[row, : row + 1] = triangle[start : start + row + 1]
    return square + square.tril(-1).T


def read_reply(
    content: RecordDict,
    instruction: Instruction,
    shapes: Mapping[str, tuple[int, int]],
    max_norm: float | None = None,
) -> tuple[dict[str, EditStatistics], int]:
    """Return the statistics of a reply by parameter, and the number of its edits.

    Nothing is returned unless every part of the reply passes every check.

    Raises
    ------
    PayloadError
        If a record is missing, the reply answers another instruction or another model,
        or its arrays fail `unpack_statistics` or exceed ``max_norm``.
    """
    arrays = content.array_records.get(ARRAYS)
    metrics = content.metric_records.get(METRICS)
    config = content.config_records.get(CONFIG)
    if arrays is None or metrics is None or config is None:
        raise PayloadError(
            f"Expected the records {ARRAYS!r}, {METRICS!r} and {CONFIG!r}, found "
            f"{shorten(content)}. Use the ClientApp of flwr_collabedit."
        )
    for key, expected in instruction.reply_config().items():
        if config.get(key) != expected:
            raise PayloadError(
                f"Expected {key} {expected!r}, found {config.get(key)!r}. Use the same "
                "model, tokenizer and flwr-collabedit on server and clients."
            )
    num_edits = metrics.get(NUM_EDITS)
    if not isinstance(num_edits, int) or num_edits < 0:
        raise PayloadError(f"{NUM_EDITS} is {num_edits!r}; expected a count.")
    wanted = array_keys(instruction.measured, instruction.form)
    if list(arrays) != wanted:
        raise PayloadError(
            f"Expected arrays {shorten(wanted)}, found {shorten(arrays)}."
        )
    statistics = {}
    for name in instruction.measured:
        keys = array_keys([name], instruction.form)
        parts = [arrays[key].numpy() for key in keys]
        try:
            _check_norms(parts, max_norm)
            statistics[name] = unpack_statistics(
                parts, instruction.form, shapes[name], num_edits
            )
        except PayloadError as error:
            raise PayloadError(f"{name}: {error}") from None
    return statistics, num_edits


def read_metric_sums(content: RecordDict) -> MetricSums:
    """Return the sums and counts of an evaluation reply.

    Raises
    ------
    PayloadError
        If there is no metric record or its entries are not sums and counts.
    """
    metrics = content.metric_records.get(METRICS)
    if metrics is None:
        raise PayloadError(
            f"Expected the record {METRICS!r}, found {shorten(content)}. Use the "
            "ClientApp of flwr_collabedit."
        )
    return MetricSums.from_flat(metrics)


def _check_norms(parts: Sequence[NDArray[np.generic]], max_norm: float | None) -> None:
    for part in parts:
        norm = float(np.linalg.norm(part))
        if max_norm is not None and norm > max_norm:
            raise PayloadError(f"norm {norm:.3g} exceeds the bound of {max_norm:.3g}.")
