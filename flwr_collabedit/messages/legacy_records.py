"""Our messages as Flower's legacy API carries them, and back.

A ``NumPyClient`` is given arrays without names and scalars, and returns the same with
one number. What it means is the same in both APIs, so that the strategies are, too.
"""

from collections.abc import Mapping

import flwr.compat.common.recorddict_compat as compat
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    ConfigRecordValues,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.common import Code, EvaluateIns, FitIns, Scalar

from flwr_collabedit.errors import PayloadError
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.payloads import (
    ARRAYS,
    CONFIG,
    METRICS,
    NUM_EDITS,
    array_keys,
)

_NUMPY = "numpy.ndarray"
_LEGACY_TYPES = ("get_parameters", "get_properties")
_LEGACY_RECORDS = ("fitins.", "evaluateins.", "secaggplus_")


def is_legacy(message: Message) -> bool:
    """Return whether a message to a client is of the legacy API."""
    if message.metadata.message_type in _LEGACY_TYPES:
        return True
    names = message.content if message.has_content() else ()
    return any(name.startswith(_LEGACY_RECORDS) for name in names)


def to_legacy(content: RecordDict, message_type: str) -> RecordDict:
    """Return what a client is sent as the legacy API has it; arrays lose their names.

    Raises
    ------
    PayloadError
        If the configuration holds a list, which the legacy API cannot carry.
    """
    config = scalars(content.config_records[CONFIG])
    record = content.array_records[ARRAYS]
    parameters = compat.arrayrecord_to_parameters(record, keep_input=True)
    if message_type == MessageType.EVALUATE:
        return compat.evaluateins_to_recorddict(EvaluateIns(parameters, config), True)
    return compat.fitins_to_recorddict(FitIns(parameters, config), True)


def from_legacy(
    content: RecordDict, message_type: str, instruction: Instruction
) -> RecordDict:
    """Return a client's legacy reply to an instruction as the message API has it.

    Raises
    ------
    PayloadError
        If it is not such a reply.
    """
    try:
        if message_type == MessageType.EVALUATE:
            scored = compat.recorddict_to_evaluateres(content)
            figures = {"loss": scored.loss, **scored.metrics}
            return reply_content(None, scored.num_examples, figures)
        fitted = compat.recorddict_to_fitres(content, keep_input=True)
        if fitted.status.code != Code.OK:
            raise PayloadError(
                f"The client's status is {fitted.status.code.name}: "
                f"{fitted.status.message}. Use the ClientApp of flwr_collabedit."
            )
        keys = array_keys(instruction.measured, instruction.form)
        # Not read yet: their bytes are checked where those of the message API are.
        found = [Array("", (), _NUMPY, data) for data in fitted.parameters.tensors]
        arrays = ArrayRecord(dict(zip(keys, found, strict=True)))
        return reply_content(arrays, fitted.num_examples, fitted.metrics)
    except PayloadError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise PayloadError(
            f"Expected the legacy reply of an EditingClient, found {error!r}. Use the "
            "ClientApp of flwr_collabedit."
        ) from error


def reply_content(
    arrays: ArrayRecord | None, number: int, figures: Mapping[str, Scalar]
) -> RecordDict:
    """Return what a client found: numbers as metrics, text as configuration."""
    metrics, config = MetricRecord({NUM_EDITS: number}), ConfigRecord()
    for key, value in figures.items():
        if isinstance(value, int | float):
            metrics[key] = value
        else:
            config[key] = value
    content = RecordDict({METRICS: metrics, CONFIG: config})
    if arrays is not None:
        content[ARRAYS] = arrays
    return content


def scalars(config: Mapping[str, ConfigRecordValues]) -> dict[str, Scalar]:
    """Return a configuration as the legacy API carries it.

    Raises
    ------
    PayloadError
        If it holds a list.
    """
    found: dict[str, Scalar] = {}
    for key, value in config.items():
        if isinstance(value, list):
            raise PayloadError(
                f"Configuration {key!r} is a list; Flower's legacy API carries scalars "
                "only. Join it to text."
            )
        found[key] = value
    return found
