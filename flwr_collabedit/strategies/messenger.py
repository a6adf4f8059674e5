"""What a strategy says to the clients, and what it hears of them in an exchange."""

import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message, MessageType
from flwr.common import ConfigRecordValues
from flwr.serverapp import Grid
from flwr.serverapp.exception import AggregationError

from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.errors import PayloadError, shorten
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.payloads import (
    ARRAYS,
    pack_deltas,
    record_bytes,
    sender_of,
)
from flwr_collabedit.strategies.exchange import build_messages, run_exchange
from flwr_collabedit.strategies.round_options import RoundOptions
from flwr_collabedit.strategies.round_report import RoundReport
from flwr_collabedit.strategies.server_state import ServerState


@dataclass
class Messenger:
    """Makes instructions and messages, and runs exchanges.

    Attributes
    ----------
    model, hyperparameters, contexts, options
        Of the strategy.
    round_id : str
        Identifies the model that the round's targets are optimised on.
    config : mapping
        What the user adds to every message.
    names : dict of int to str
        Under which name each node has replied.
    """

    model: EditedModel
    hyperparameters: str
    contexts: str
    options: RoundOptions
    round_id: str = ""
    config: Mapping[str, ConfigRecordValues] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    def instruction(
        self, server_round: int, measured: tuple[str, ...] = (), **fields: Any
    ) -> Instruction:
        """Return what one exchange of the round asks of the clients."""
        return Instruction(
            server_round=server_round,
            round_id=self.round_id,
            fingerprint=self.model.fingerprint,
            parameters=self.model.parameters,
            measured=measured,
            wire_dtype=self.options.wire_dtype,
            hyperparameters=self.hyperparameters,
            contexts=self.contexts,
            **fields,
        )

    def messages(
        self,
        nodes: Sequence[int],
        instruction: Instruction,
        state: ServerState,
        message_type: str = MessageType.TRAIN,
        withdrawn: Mapping[int, EditSet] | None = None,
    ) -> list[Message]:
        """Return one message a node: the current deltas and the instruction.

        Each node is told which of its own edits do not count, and which of them, by
        ``withdrawn``, are to be taken out.
        """
        arrays = pack_deltas(state.deltas, self.options.wire_dtype)
        group = str(instruction.server_round)
        found: list[Message] = []
        for node in nodes:
            name = self.name_of(node)
            update = {
                "inactive": state.inactive.get(name, EditSet()).to_json(),
                "augmented": state.augmented.get(name, EditSet()).to_json(),
            }
            if withdrawn is not None:
                update["withdrawn"] = withdrawn[node].to_json()
            own = instruction.model_copy(update=update)
            config = {**self.config, **own.to_config()}
            found += build_messages([node], arrays, config, message_type, group)
        return found

    def name_of(self, node: int) -> str:
        """Return the name under which a node has replied, empty before it has."""
        return self.names.get(node, "")

    def called(self, node: int) -> str:
        """Return what a node is called in logs and reports."""
        return self.name_of(node) or f"node {node}"

    def node_of(self, name: str) -> int:
        """Return the node that has replied under a name.

        Raises
        ------
        AggregationError
            If none has.
        """
        for node, known in self.names.items():
            if known == name:
                return node
        raise AggregationError(
            f"Expected client {name!r} among the connected ones, found "
            f"{shorten(sorted(self.names.values()))}. Connect it, or go on without."
        )

    def naming(
        self,
        accept: Callable[[Message], None],
        asked: AbstractSet[int],
        senders: dict[str, int],
    ) -> Callable[[Message], None]:
        """Return ``accept`` for one exchange, with senders' names checked and learned.

        It raises a `PayloadError` where a reply has no name or another client's, and
        enters every name's node into ``senders``.
        """

        def accept_named(reply: Message) -> None:
            node, sender = reply.metadata.src_node_id, sender_of(reply)
            owners = {known for known, name in self.names.items() if name == sender}
            if senders.setdefault(sender, node) != node or owners & (asked - {node}):
                raise PayloadError(f"Another client has the name {sender!r} already.")
            accept(reply)
            # A client that has connected anew has another node id than before.
            others = {n: known for n, known in self.names.items() if known != sender}
            self.names = {**others, node: sender}

        return accept_named

    def exchange(
        self,
        grid: Grid,
        messages: Sequence[Message],
        what: str,
        accept: Callable[[Message], None],
        report: RoundReport,
        settle: Callable[[], Mapping[str, str]] = dict,
    ) -> list[int]:
        """Send training messages; return the nodes whose replies were accepted.

        ``settle`` is called when all have come, and names the senders that are to be
        left out, with the reasons.
        """
        for message in messages:
            arrays = message.content.array_records[ARRAYS]
            report.download_bytes += record_bytes(arrays)
        needed = len(messages)
        if self.options.min_replies is not None:
            needed = min(needed, self.options.min_replies)

        senders: dict[str, int] = {}
        asked = {message.metadata.dst_node_id for message in messages}
        started = time.perf_counter()

        def noted(reply: Message) -> None:
            accept(reply)
            arrays = reply.content.array_records.get(ARRAYS)
            size = 0 if arrays is None else record_bytes(arrays)
            report.note_reply(sender_of(reply), size, time.perf_counter() - started)

        outcome = run_exchange(
            grid,
            messages,
            self.naming(noted, asked, senders),
            label=f"Round {report.server_round}, {what}",
            min_replies=needed,
            timeout_s=self.options.exchange_timeout_s,
            settle=lambda: {senders[name]: why for name, why in settle().items()},
            name_of=self.called,
        )
        report.add_seconds("exchange", time.perf_counter() - started)
        self.enter_left_out(outcome.dropped, report)
        return outcome.accepted

    def enter_absent(self, connected: Sequence[int], report: RoundReport) -> None:
        """Enter who has replied before and was not connected in this round."""
        absent = set(self.names) - set(connected)
        self.enter_left_out(dict.fromkeys(sorted(absent), "not connected"), report)

    def enter_left_out(self, dropped: Mapping[int, str], report: RoundReport) -> None:
        """Enter into the report which nodes were left out, and why."""
        for node, why in dropped.items():
            report.dropped[str(node)] = why
            report.note_left_out(self.called(node), why)
