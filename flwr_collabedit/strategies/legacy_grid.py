"""A Flower grid that speaks the legacy API to the clients of another grid."""

from collections.abc import Iterable

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from flwr_collabedit.errors import PayloadError
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.legacy_records import (
    from_legacy,
    is_legacy,
    to_legacy,
)
from flwr_collabedit.messages.payloads import CONFIG

_UNKNOWN = 0  # Flower's code of an error that is none of its own


class LegacyGrid(Grid):
    """Sends a strategy's messages as legacy ones, and gives it the replies as its own.

    Parameters
    ----------
    grid : Grid
        Carries the messages.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._waiting: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        """Set the run of the grid."""
        self.grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run of the grid."""
        return self.grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message of the grid."""
        return self.grid.create_message(
            content, message_type, dst_node_id, group_id, ttl
        )

    def get_node_ids(self) -> Iterable[int]:
        """Return the connected nodes."""
        return self.grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages that each hold an instruction."""
        asked = list(messages)
        ids = list(self.grid.push_messages([_as_legacy(message) for message in asked]))
        self._waiting |= dict(zip(ids, asked, strict=True))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have arrived; one that is none is an error."""
        for reply in self.grid.pull_messages(list(message_ids)):
            asked = self._waiting.pop(reply.metadata.reply_to_message_id)
            yield _from_legacy(reply, asked)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Return the replies to messages that go to one node each."""
        asked = {message.metadata.dst_node_id: message for message in messages}
        sent = [_as_legacy(message) for message in asked.values()]
        replies = self.grid.send_and_receive(sent, timeout=timeout)
        return [_from_legacy(r, asked[r.metadata.src_node_id]) for r in replies]


def _as_legacy(message: Message) -> Message:
    if is_legacy(message):  # secure aggregation's
        return message
    metadata = message.metadata
    return Message(
        to_legacy(message.content, metadata.message_type),
        metadata.dst_node_id,
        metadata.message_type,
        group_id=metadata.group_id,
    )


def _from_legacy(reply: Message, asked: Message) -> Message:
    if reply.has_error() or is_legacy(asked):
        return reply
    instruction = Instruction.from_config(asked.content.config_records[CONFIG])
    kind = asked.metadata.message_type
    try:
        reply.content = from_legacy(reply.content, kind, instruction)
    except PayloadError as error:
        failed = Error(_UNKNOWN, str(error))
        found: Message = Message(failed, metadata=reply.metadata)  # type: ignore[call-overload]
        return found
    return reply
