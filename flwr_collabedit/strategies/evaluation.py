"""What clients' evaluations say."""

from collections.abc import Iterable, Sequence
from logging import WARNING

from flwr.app import Message
from flwr.common import log
from flwr.serverapp.exception import AggregationError

from flwr_collabedit.errors import PayloadError, shorten
from flwr_collabedit.evaluation.metrics import MetricSums
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.replies import read_metric_sums


def read_evaluations(
    replies: Iterable[Message],
    instruction: Instruction,
    min_replies: int,
    asked: Sequence[int] = (),
) -> tuple[dict[int, MetricSums], dict[str, str]]:
    """Return every client node's sums, and the nodes left out with reasons.

    Nodes that were ``asked`` and have not replied are left out, too.

    Raises
    ------
    AggregationError
        If fewer than ``min_replies`` are valid.
    """
    by_node: dict[int, MetricSums] = {}
    dropped = {}
    for reply in replies:
        try:
            by_node[reply.metadata.src_node_id] = _read(reply, instruction)
        except PayloadError as error:
            dropped[str(reply.metadata.src_node_id)] = f"evaluation: {error}"
    for node in map(str, asked):
        if int(node) not in by_node:
            dropped.setdefault(node, "evaluation: no reply in time")
    for node, why in dropped.items():
        log(WARNING, "Evaluation: left out client node %s: %s", node, why)
    if len(by_node) < min_replies:
        raise AggregationError(
            f"Evaluation of round {instruction.server_round}: expected at least "
            f"{min_replies} valid replies, found {len(by_node)}. Left out: "
            f"{shorten(dropped.items())}. Mend these clients, or lower min_replies."
        )
    return by_node, dropped


def _read(reply: Message, instruction: Instruction) -> MetricSums:
    if reply.has_error():
        raise PayloadError(f"error {reply.error.code}: {reply.error.reason}")
    return read_metric_sums(reply.content, instruction)
