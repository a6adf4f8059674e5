"""One ClientApp for both APIs: what leaves it masked, what not, and what is refused."""

import pytest
from federation import MODEL, Edits, strategy
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common.secure_aggregation.secaggplus_constants import (
    RECORD_KEY_CONFIGS,
    Key,
    Stage,
)
from flwr.supercore.task_identity import TaskIdentity
from numbers_client import numbers_client_fn

from flwr_collabedit.client.editing_app import make_client_app
from flwr_collabedit.errors import PayloadError
from flwr_collabedit.messages.legacy_records import to_legacy
from flwr_collabedit.messages.payloads import ARRAYS, read_deltas
from flwr_collabedit.strategies import SecureAggregation

CLIENTS = [[Edits.random(3, 1)]]


def context() -> Context:
    return Context(1, 7, {"partition-id": 0}, RecordDict(), {})


def asked(secure: bool) -> Message:
    """Return a training message, as the strategy writes it."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    server = strategy(1, form="dense", secure=SecureAggregation())
    server.state = server.state.__class__(
        deltas=read_deltas(server.initial_arrays(), MODEL)
    )
    instruction = server.asked(1, MODEL.parameters)
    if secure:
        priors = {name: server.priors[name] for name in MODEL.parameters}
        task = server.secure.task(2, priors).model_dump_json()
        instruction = instruction.model_copy(update={"secure": task})
    (message,) = server.messenger.messages([7], instruction, server.state)
    message.metadata.__dict__["_message_id"] = "1"
    return message


def as_legacy(message: Message, masked: bool) -> Message:
    content = to_legacy(message.content, "train")
    if masked:
        stage = {Key.STAGE: Stage.COLLECT_MASKED_VECTORS}
        content[RECORD_KEY_CONFIGS] = ConfigRecord(stage)
    message.content = content
    return message


def test_statistics_for_secure_aggregation_never_leave_unmasked():
    app = make_client_app(numbers_client_fn(CLIENTS))

    for message in (asked(secure=True), as_legacy(asked(secure=True), masked=False)):
        with pytest.raises(PayloadError, match="would leave unmasked"):
            app(message, context())


def test_plain_statistics_are_not_clipped_by_secure_aggregation():
    app = make_client_app(numbers_client_fn(CLIENTS))

    with pytest.raises(PayloadError, match="clip"):
        app(as_legacy(asked(secure=False), masked=True), context())


def test_both_apis_send_the_same_arrays():
    app = make_client_app(numbers_client_fn(CLIENTS))

    ours = app(asked(secure=False), context()).content.array_records[ARRAYS]
    legacy = app(as_legacy(asked(secure=False), masked=False), context()).content

    found = legacy.array_records["fitres.parameters"]
    assert [a.data for a in found.values()] == [a.data for a in ours.values()]


def test_a_legacy_question_that_a_client_does_not_answer_is_told_so():
    content = RecordDict({"getpropertiesins.config": ConfigRecord()})
    message = Message(content, dst_node_id=7, message_type="get_properties")

    reply = make_client_app(numbers_client_fn(CLIENTS))(message, context())

    status = reply.content.config_records["getpropertiesres.status"]
    assert "does not implement" in status["message"]
