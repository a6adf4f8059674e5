"""One exchange with the clients: send, take replies as they arrive, drop bad ones."""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from logging import INFO, WARNING

from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    ConfigRecordValues,
    Message,
    RecordDict,
)
from flwr.common import log
from flwr.serverapp import Grid
from flwr.serverapp.exception import AggregationError

from flwr_collabedit.errors import PayloadError, shorten
from flwr_collabedit.messages.payloads import ARRAYS, CONFIG

_POLL_S = 0.1
# Replies are pulled a few at a time: all at once they would sit in memory together.
_PULL_AT_ONCE = 4


@dataclass
class Outcome:
    """Who took part in an exchange, and who was left out for which reason."""

    accepted: list[int] = field(default_factory=list)
    dropped: dict[int, str] = field(default_factory=dict)


def wait_for_nodes(
    grid: Grid, wanted: int, timeout_s: float, *, needed: int | None = None
) -> list[int]:
    """Return the connected nodes in the order of their ids, once there are enough.

    Parameters
    ----------
    grid : Grid
        Knows who is connected.
    wanted : int
        Nodes to wait for.
    timeout_s : float
        How long, in seconds.
    needed : int or None
        Nodes that are enough when the time is over; ``None`` for all that are wanted.

    Raises
    ------
    AggregationError
        If there are fewer then.
    """
    needed = wanted if needed is None else min(needed, wanted)
    end = time.monotonic() + timeout_s
    while len(nodes := sorted(grid.get_node_ids())) < wanted:
        if time.monotonic() > end:
            break
        time.sleep(_POLL_S)
    if len(nodes) < needed:
        raise AggregationError(
            f"Expected at least {needed} connected clients, found {len(nodes)} after "
            f"{timeout_s:.0f} s. Start more clients or lower min_available_nodes."
        )
    if len(nodes) < wanted:
        log(
            WARNING,
            "Expected %s connected clients, going on with %s after %.0f s",
            *(wanted, len(nodes), timeout_s),
        )
    return nodes


def sample_nodes(nodes: Sequence[int], fraction: float, seed: int) -> list[int]:
    """Return a share of the nodes, at least one, in the order of their ids.

    The same nodes, fraction and seed give the same sample.
    """
    if fraction == 1:
        return list(nodes)
    count = max(1, round(fraction * len(nodes)))
    return sorted(random.Random(seed).sample(list(nodes), count))


def build_messages(
    nodes: Sequence[int],
    arrays: ArrayRecord,
    config: Mapping[str, ConfigRecordValues],
    message_type: str,
    group_id: str,
) -> list[Message]:
    """Return one message a node; they share the arrays, each has its own config."""
    return [
        Message(
            RecordDict({ARRAYS: arrays, CONFIG: ConfigRecord({**config})}),
            dst_node_id=node,
            message_type=message_type,
            group_id=group_id,
        )
        for node in nodes
    ]


def run_exchange(
    grid: Grid,
    messages: Sequence[Message],
    accept: Callable[[Message], None],
    *,
    label: str,
    min_replies: int,
    timeout_s: float,
    settle: Callable[[], Mapping[int, str]] = dict,
    name_of: Callable[[int], str] = "node {}".format,
) -> Outcome:
    """Send the messages and hand every reply to ``accept`` as it arrives.

    A reply that carries an error, that ``accept`` refuses with a `PayloadError`, that
    does not arrive in time or that ``settle``, called when all have come, names with a
    reason is left out and logged, under what ``name_of`` calls its node; it costs
    nobody else anything.

    Raises
    ------
    AggregationError
        If fewer than ``min_replies`` were accepted.
    """
    outcome = Outcome()
    missing = {message.metadata.dst_node_id for message in messages}
    for reply in _stream(grid, messages, timeout_s):
        node = reply.metadata.src_node_id
        missing.discard(node)
        reason = _try(accept, reply)
        if reason is None:
            outcome.accepted.append(node)
        else:
            outcome.dropped[node] = reason
        done = len(messages) - len(missing)
        log(INFO, "%s: %s of %s replies", label, done, len(messages))
    for node in missing:
        outcome.dropped[node] = f"no reply within {timeout_s:.0f} s"
    outcome.dropped |= settle()
    outcome.accepted = [n for n in outcome.accepted if n not in outcome.dropped]
    for node, reason in outcome.dropped.items():
        log(WARNING, "%s: left out %s: %s", label, name_of(node), reason)
    if len(outcome.accepted) < min_replies:
        raise AggregationError(
            f"{label}: expected at least {min_replies} valid replies, found "
            f"{len(outcome.accepted)}. Left out: "
            f"{shorten((name_of(n), why) for n, why in outcome.dropped.items())}. "
            "Mend these clients, or lower min_replies to go on without them."
        )
    return outcome


def _try(accept: Callable[[Message], None], reply: Message) -> str | None:
    if reply.has_error():
        return f"error {reply.error.code}: {reply.error.reason}"
    try:
        accept(reply)
    except PayloadError as error:
        return str(error)
    return None


def _stream(
    grid: Grid, messages: Sequence[Message], timeout_s: float
) -> Iterator[Message]:
    """Yield one reply a message, of the node that it was sent to; no other."""
    asked = [message.metadata.dst_node_id for message in messages]
    pending = dict(zip(grid.push_messages(messages), asked, strict=True))
    end = time.monotonic() + timeout_s
    while pending and time.monotonic() < end:
        arrived, ids = False, list(pending)
        for start in range(0, len(ids), _PULL_AT_ONCE):
            for reply in grid.pull_messages(ids[start : start + _PULL_AT_ONCE]):
                metadata = reply.metadata
                if pending.get(metadata.reply_to_message_id) == metadata.src_node_id:
                    del pending[metadata.reply_to_message_id]
                    arrived = True
                    yield reply
        if not arrived:
            time.sleep(_POLL_S)
