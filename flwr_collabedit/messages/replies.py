"""What the server takes from a client's reply, after checking all of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray
from torch import Tensor

from flwr_collabedit.editor_names import editor_of, keeps_targets
from flwr_collabedit.errors import PayloadError, shorten
from flwr_collabedit.evaluation.metrics import MetricSums
from flwr_collabedit.messages.array_reading import read_array
from flwr_collabedit.messages.contributions import Contribution
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.payloads import (
    ARRAYS,
    CONFIG,
    METRICS,
    NUM_EDITS,
    array_keys,
    num_edits_of,
    sender_of,
    unpack_delta,
    unpack_statistics,
)


@dataclass(frozen=True)
class ReplyLimits:
    """What a reply may not exceed, whatever the others are like.

    Attributes
    ----------
    max_norm : float or None
        Frobenius norm of each array.
    max_edits : int or None
        Edits that it stands for.
    """

    max_norm: float | None = None
    max_edits: int | None = None


NO_LIMITS = ReplyLimits()
Parts = Sequence[NDArray[np.generic]]
T = TypeVar("T")


def read_reply(
    content: RecordDict,
    instruction: Instruction,
    shapes: Mapping[str, tuple[int, int]],
    limits: ReplyLimits = NO_LIMITS,
) -> dict[str, Contribution]:
    """Return the statistics of a reply by parameter, in the form that they came in.

    Nothing is returned unless every part of the reply passes every check.

    Raises
    ------
    PayloadError
        If a record is missing, the reply answers another instruction or another model,
        or its arrays fail `unpack_statistics` or exceed a limit.
    """
    arrays, num_edits = checked_records(content, instruction, limits)

    def unpack(name: str, parts: Parts) -> Contribution:
        return unpack_statistics(
            *(parts, instruction.form, shapes[name], num_edits),
            one_key_an_edit=has_one_key_an_edit(instruction),
        )

    return _unpack_all(arrays, instruction, limits, unpack)


def has_one_key_an_edit(instruction: Instruction) -> bool:
    """Return whether statistics that it asks for have one key for every edit."""
    return keeps_targets(editor_of(instruction.hyperparameters))


def check_same_count(reply: Message, before: Mapping[str, int]) -> None:
    """Raise unless a client stands for as many edits as before in the round.

    Raises
    ------
    PayloadError
        If it gives another number.
    """
    now, then = num_edits_of(reply), before.get(sender_of(reply))
    if then is not None and now != then:
        raise PayloadError(
            f"{NUM_EDITS} is {now}, but was {then} earlier in this round. Use the "
            "ClientApp of flwr_collabedit."
        )


def read_delta_reply(
    content: RecordDict,
    instruction: Instruction,
    shapes: Mapping[str, tuple[int, int]],
    limits: ReplyLimits = NO_LIMITS,
) -> tuple[dict[str, Tensor], int]:
    """Return a client's solved deltas by parameter, and the number of its edits.

    As `read_reply`, for form ``delta``.
    """
    arrays, num_edits = checked_records(content, instruction, limits)

    def unpack(name: str, parts: Parts) -> Tensor:
        return unpack_delta(parts, shapes[name], num_edits)

    return _unpack_all(arrays, instruction, limits, unpack), num_edits


def read_metric_sums(content: RecordDict, instruction: Instruction) -> MetricSums:
    """Return the sums and counts of an evaluation reply.

    Raises
    ------
    PayloadError
        If a record is missing, the reply answers another instruction or another model,
        or its metrics are not sums and counts.
    """
    checked_config(content, instruction)
    metrics = content.metric_records.get(METRICS)
    if metrics is None:
        raise _missing(content, METRICS)
    return MetricSums.from_flat(metrics)


def checked_config(content: RecordDict, instruction: Instruction) -> ConfigRecord:
    """Return the config record of a reply to this instruction.

    Raises
    ------
    PayloadError
        If it is missing, or answers another instruction or another model.
    """
    config = content.config_records.get(CONFIG)
    if config is None:
        raise _missing(content, CONFIG)
    for key, expected in instruction.reply_config().items():
        if config.get(key) != expected:
            raise PayloadError(
                f"Expected {key} {expected!r}, found {config.get(key)!r}. Use the same "
                "model, tokenizer and flwr-collabedit on server and clients."
            )
    return config


def checked_records(
    content: RecordDict, instruction: Instruction, limits: ReplyLimits = NO_LIMITS
) -> tuple[ArrayRecord, int]:
    """Return the arrays and the number of edits of a reply to this instruction.

    Raises
    ------
    PayloadError
        If a record is missing, the reply answers another instruction or another model,
        or its arrays have other names.
    """
    checked_config(content, instruction)
    arrays = content.array_records.get(ARRAYS)
    metrics = content.metric_records.get(METRICS)
    if arrays is None or metrics is None:
        raise _missing(content, ARRAYS, METRICS)
    num_edits = metrics.get(NUM_EDITS)
    if isinstance(num_edits, bool) or not isinstance(num_edits, int) or num_edits < 0:
        raise PayloadError(f"{NUM_EDITS} is {num_edits!r}; expected a count.")
    if limits.max_edits is not None and num_edits > limits.max_edits:
        raise PayloadError(
            f"{NUM_EDITS} is {num_edits}; this run takes at most {limits.max_edits}."
        )
    wanted = array_keys(instruction.measured, instruction.form)
    if list(arrays) != wanted:
        raise PayloadError(
            f"Expected arrays {shorten(wanted)}, found {shorten(arrays)}."
        )
    return arrays, num_edits


def _missing(content: RecordDict, *names: str) -> PayloadError:
    return PayloadError(
        f"Expected the records {shorten(names)}, found {shorten(content)}. Use the "
        "ClientApp of flwr_collabedit."
    )


def _unpack_all(
    arrays: ArrayRecord,
    instruction: Instruction,
    limits: ReplyLimits,
    unpack: Callable[[str, Parts], T],
) -> dict[str, T]:
    found = {}
    for name in instruction.measured:
        keys = array_keys([name], instruction.form)
        parts = [read_array(key, arrays[key]) for key in keys]
        try:
            _check_norms(parts, limits.max_norm)
            found[name] = unpack(name, parts)
        except PayloadError as error:
            raise PayloadError(f"{name}: {error}") from None
    return found


def _check_norms(parts: Parts, max_norm: float | None) -> None:
    for part in parts:
        norm = float(np.linalg.norm(part))
        if max_norm is not None and norm > max_norm:
            raise PayloadError(f"norm {norm:.3g} exceeds the bound of {max_norm:.3g}.")
