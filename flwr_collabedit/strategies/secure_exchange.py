"""One exchange through Flower's SecAgg+: the server sees the sum of all replies only.

Bell et al. "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", CCS
2020, as Flower's legacy workflow runs it. Clients that drop out after they have shared
their keys are recovered; if one drops out before, the exchange begins again without it:
nothing has been masked by then.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import flwr.compat.common.recorddict_compat as compat
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.common import FitIns, FitRes, Parameters, Scalar, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import (
    RECORD_KEY_CONFIGS,
    Key,
    Stage,
)
from flwr.server import ClientManager, LegacyContext
from flwr.server.client_proxy import ClientProxy
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.serverapp import Grid
from flwr.serverapp.exception import AggregationError
from numpy.typing import NDArray

from flwr_collabedit.errors import shorten
from flwr_collabedit.messages.legacy_records import scalars
from flwr_collabedit.messages.payloads import ARRAYS, CONFIG
from flwr_collabedit.messages.secure_payload import SecureTask

_BEFORE_MASKING = (Stage.SETUP, Stage.SHARE_KEYS)


@dataclass
class SecureOutcome:
    """What an exchange gave.

    Attributes
    ----------
    mean : list of ndarray
        Of the survivors' arrays, float64.
    replies : dict of int to FitRes
        By node, what it says in clear; its parameters are the mean.
    dropped : dict of int to str
        Who was left out, and why.
    upload_bytes : dict of int to int
        Of masked arrays, by node.
    """

    mean: list[NDArray[np.generic]] = field(default_factory=list)
    replies: dict[int, FitRes] = field(default_factory=dict)
    dropped: dict[int, str] = field(default_factory=dict)
    upload_bytes: dict[int, int] = field(default_factory=dict)


def run_secure_exchange(
    grid: Grid,
    messages: Sequence[Message],
    task: SecureTask,
    *,
    label: str,
    threshold: float,
    min_replies: int,
    timeout_s: float,
) -> SecureOutcome:
    """Send the messages and return the mean of the replies.

    Parameters
    ----------
    messages : sequence of Message
        One a node, each with arrays and an instruction.
    task : SecureTask
        What the clients are told; with it the protocol rounds and clips nothing.
    threshold : float
        Share of the clients, in (0, 1], that must not drop out, for the masks of those
        that do to be removed; at least two clients.
    min_replies : int
        Valid replies that are needed.
    timeout_s : float
        How long each of the protocol's four stages waits.

    Raises
    ------
    AggregationError
        If there are too few replies, or too few clients for a sum that hides them.
    """
    outcome = SecureOutcome()
    needed = max(min_replies, 2)
    asked = {message.metadata.dst_node_id: message for message in messages}
    while not outcome.replies and len(asked) >= needed:
        listening = _Listening(grid, outcome)
        try:
            _run_protocol(listening, asked, task, threshold, timeout_s, outcome)
            break
        except _LeftBeforeMaskingError:
            asked = {n: m for n, m in asked.items() if n not in outcome.dropped}
    outcome.dropped = {
        node: why
        for node, why in outcome.dropped.items()
        if node not in outcome.replies
    }
    if len(outcome.replies) < needed:
        raise AggregationError(
            f"{label}: expected at least {needed} valid replies to secure aggregation, "
            f"found {len(outcome.replies)}. Left out: "
            f"{shorten(outcome.dropped.items())}. Mend these clients, or lower "
            "min_replies to go on without them."
        )
    return outcome


class _LeftBeforeMaskingError(Exception):
    """A client left before masks were made: the others' would not cancel."""


@dataclass
class _Listening:
    """The part of a grid that the workflow uses; notes who fails, when and why."""

    grid: Grid
    outcome: SecureOutcome

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        sent = list(messages)
        configs = sent[0].content.config_records[RECORD_KEY_CONFIGS]
        is_masked = configs[Key.STAGE] not in _BEFORE_MASKING
        missing = {m.metadata.dst_node_id: f"no reply within {timeout} s" for m in sent}
        replies = list(self.grid.send_and_receive(sent, timeout=timeout))
        for reply in replies:
            node = reply.metadata.src_node_id
            if reply.has_error():
                missing[node] = f"error {reply.error.code}: {reply.error.reason}"
                continue
            del missing[node]
            found = reply.content.config_records[RECORD_KEY_CONFIGS]
            masked = cast(list[bytes], found.get(Key.MASKED_PARAMETERS, []))
            sent_before = self.outcome.upload_bytes.get(node, 0)
            self.outcome.upload_bytes[node] = sent_before + sum(map(len, masked))
        self.outcome.dropped |= missing
        if missing and not is_masked:
            raise _LeftBeforeMaskingError
        return replies


class _OneExchange(FedAvg):
    """Gives the workflow what to send, and takes what it found."""

    def __init__(self, asked: Mapping[int, Message], outcome: SecureOutcome) -> None:
        super().__init__()
        self._asked, self._outcome = asked, outcome

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        return [(_proxy(node), _fit_ins(m)) for node, m in self._asked.items()]

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, dict[str, Scalar]]:
        self._outcome.replies = {proxy.node_id: reply for proxy, reply in results}
        # All replies have the same; who drops out from here on is in it.
        self._outcome.mean = parameters_to_ndarrays(results[0][1].parameters)
        return None, {}


def _run_protocol(
    listening: _Listening,
    asked: Mapping[int, Message],
    task: SecureTask,
    threshold: float,
    timeout_s: float,
    outcome: SecureOutcome,
) -> None:
    context = LegacyContext(
        Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={}),
        strategy=_OneExchange(asked, outcome),
    )
    group = next(iter(asked.values())).metadata.group_id
    context.state[MAIN_CONFIGS_RECORD] = ConfigRecord(
        {WorkflowKey.CURRENT_ROUND: int(group)}
    )
    context.state[MAIN_PARAMS_RECORD] = ArrayRecord()
    workflow = SecAggPlusWorkflow(
        num_shares=1.0,
        reconstruction_threshold=threshold,
        max_weight=1.0,
        clipping_range=task.clipping_range,
        quantization_range=task.quantization_range,
        timeout=timeout_s,
    )
    workflow(cast(Grid, listening), context)


def _proxy(node: int) -> GridClientProxy:
    # Only its number is read; it is never asked for anything.
    return GridClientProxy(node, cast(Grid, None), 1)


def _fit_ins(message: Message) -> FitIns:
    record = message.content.array_records[ARRAYS]
    return FitIns(
        compat.arrayrecord_to_parameters(record, keep_input=True),
        scalars(message.content.config_records[CONFIG]),
    )
