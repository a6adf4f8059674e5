"""What every editing strategy shares: who is asked, what is sent, what is reported."""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from logging import INFO

import torch
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Message,
    MessageType,
    MetricRecord,
)
from flwr.common import log
from flwr.serverapp import Grid
from flwr.serverapp.exception import AggregationError
from flwr.serverapp.strategy import Result, Strategy
from torch import Tensor

from flwr_collabedit.algebra.schedule import LayerSchedule, ResidualSplit
from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.evaluation.metrics import MetricSums
from flwr_collabedit.instruction import Form, Instruction, WireDtype
from flwr_collabedit.payloads import (
    ARRAYS,
    digest,
    pack_deltas,
    read_deltas,
    record_bytes,
)
from flwr_collabedit.strategies.evaluation import read_evaluations
from flwr_collabedit.strategies.exchange import (
    build_messages,
    run_exchange,
    sample_nodes,
    wait_for_nodes,
)
from flwr_collabedit.strategies.round_report import RoundReport


class EditStrategy(Strategy):
    """Base of the strategies: Flower's loop around rounds of several exchanges.

    A round may take several exchanges with the clients and must not hold all replies in
    memory, which Flower's one ``send_and_receive`` a round cannot do. So
    `configure_train` runs the exchanges itself, taking replies as they arrive, and
    returns no messages for Flower to send; `aggregate_train` returns what they gave.

    The arrays are the cumulative deltas of the edited weights, ``(d_value, d_key)``,
    float64, zero at the start: the server needs no model.

    Parameters
    ----------
    model : EditedModel
        Fingerprint and shapes that every reply must match.
    hyperparameters, contexts : str
        JSON of the editor's configuration and the shared context templates; the
        server reads no more of them than the editor's name.
    wire_dtype : {"float32", "float64"}
        Of all arrays in messages, both ways.
    min_available_nodes : int
        Connected clients to wait for before each round.
    min_replies : int or None
        Valid replies that each exchange needs; ``None`` asks for all that were asked.
    fraction_train : float
        Share of the connected clients, in (0, 1], that a round asks to edit, at least
        one. Who is left out keeps its edits of that round to itself: they are written
        in no later round. All clients are scored, on unwritten edits too.
    seed : int
        With the round's number it seeds who is asked.
    max_norm : float or None
        Bound on the Frobenius norm of each array in a reply.
    exchange_timeout_s : float
        How long an exchange waits for replies.
    evaluate : bool
        Whether clients score their own cases after every round.
    evaluate_every : int
        With ``evaluate``, every so many rounds, and after the last one.
    evaluate_before : bool
        Whether, with ``evaluate``, they also score them before the first round: the
        same figures for every strategy, so that a comparison needs them only once.
    on_round : callable or None
        Called with the `RoundReport` of each finished round, 0 included.
    """

    def __init__(
        self,
        model: EditedModel,
        *,
        hyperparameters: str,
        contexts: str,
        wire_dtype: WireDtype = "float32",
        min_available_nodes: int = 2,
        min_replies: int | None = None,
        fraction_train: float = 1.0,
        seed: int = 0,
        max_norm: float | None = None,
        exchange_timeout_s: float = 3600.0,
        evaluate: bool = True,
        evaluate_every: int = 1,
        evaluate_before: bool = True,
        on_round: Callable[[RoundReport], None] | None = None,
    ) -> None:
        if min_available_nodes < 1 or (min_replies is not None and min_replies < 1):
            raise ConfigurationError(
                "Expected min_available_nodes and min_replies of at least 1, found "
                f"{min_available_nodes} and {min_replies}."
            )
        if evaluate_every < 1:
            raise ConfigurationError(
                f"Expected evaluate_every of at least 1, found {evaluate_every}."
            )
        if not 0 < fraction_train <= 1:
            raise ConfigurationError(
                "Expected fraction_train above 0 and at most 1, found "
                f"{fraction_train}. 1 asks every client."
            )
        self.model = model
        self.hyperparameters = hyperparameters
        self.contexts = contexts
        self.wire_dtype: WireDtype = wire_dtype
        self.min_available_nodes = min_available_nodes
        self.min_replies = min_replies
        self.fraction_train, self.seed = fraction_train, seed
        self.max_norm = max_norm
        self.exchange_timeout_s = exchange_timeout_s
        self.evaluate, self.evaluate_every = evaluate, evaluate_every
        self.evaluate_before = evaluate and evaluate_before
        self.reports: list[RoundReport] = []
        self._on_round = on_round
        self._deltas: dict[str, Tensor] = {}
        self._round_id = ""
        self._num_rounds = 0

    @abstractmethod
    def edit(self, grid: Grid, nodes: Sequence[int], report: RoundReport) -> None:
        """Run the round's exchanges and advance ``self._deltas``."""

    def initial_arrays(self) -> ArrayRecord:
        """Return zero deltas for every edited weight."""
        zeros = {
            name: torch.zeros(shape, dtype=torch.float64)
            for name, shape in self.model.shapes.items()
        }
        return pack_deltas(zeros, "float64")

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Score the unedited model if wanted, run Flower's loop from zero deltas."""
        arrays = self.initial_arrays() if initial_arrays is None else initial_arrays
        self._num_rounds = num_rounds
        if self.evaluate_before:
            self.reports.append(RoundReport(0))
            messages = self.configure_evaluate(
                0, arrays, evaluate_config or ConfigRecord(), grid
            )
            replies = grid.send_and_receive(messages, timeout=timeout)
            self.aggregate_evaluate(0, replies)
        return super().start(
            grid,
            arrays,
            num_rounds,
            timeout,
            train_config,
            evaluate_config,
            evaluate_fn,
        )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Run the round's exchanges; nothing is left for Flower to send."""
        self._begin(server_round, arrays, config)
        nodes = wait_for_nodes(grid, self.min_available_nodes, self.exchange_timeout_s)
        asked = sample_nodes(nodes, self.fraction_train, self.seed + server_round)
        if self.min_replies is not None and self.min_replies > len(asked):
            raise AggregationError(
                f"Round {server_round}: min_replies is {self.min_replies}, but only "
                f"{len(asked)} of {len(nodes)} clients are asked. Lower min_replies or "
                "raise fraction_train."
            )
        self.reports.append(RoundReport(server_round))
        self.edit(grid, asked, self.reports[-1])
        return ()

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the cumulative deltas and the figures of the round's exchanges."""
        report = self.reports[-1]
        if not self._is_evaluated(server_round):
            self._finish(report)
        return pack_deltas(self._deltas, "float64"), report.train_metrics()

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask every client to score its own cases on the current model."""
        if not self._is_evaluated(server_round):
            return ()
        if server_round == 0:
            self._begin(server_round, arrays, config)
        self._config = dict(config)
        nodes = wait_for_nodes(grid, self.min_available_nodes, self.exchange_timeout_s)
        instruction = self.evaluation_instruction(server_round)
        self._num_asked = len(nodes)
        return self.messages(nodes, instruction, MessageType.EVALUATE)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Return the scores over all clients' cases, from their sums and counts."""
        if not self._is_evaluated(server_round):
            return None
        needed = self._num_asked if self.min_replies is None else self.min_replies
        instruction = self.evaluation_instruction(server_round)
        by_node, dropped = read_evaluations(replies, instruction, needed)
        report = self.reports[-1]
        self.set_evaluation(report, by_node)
        report.dropped |= dropped
        self._finish(report)
        return MetricRecord({**report.evaluation})

    def set_evaluation(
        self, report: RoundReport, by_node: Mapping[int, MetricSums]
    ) -> None:
        """Enter the sums over all clients' cases into the round's report."""
        report.set_evaluation(MetricSums.merge(by_node.values()))

    def summary(self) -> None:
        """Log what is edited and what a round needs."""
        log(INFO, "\t├──> Edited weights: %s", ", ".join(self.model.parameters))
        log(INFO, "\t├──> Wire dtype: %s", self.wire_dtype)
        log(INFO, "\t└──> Clients to wait for: %s", self.min_available_nodes)

    def instruction(
        self,
        server_round: int,
        measured: tuple[str, ...] = (),
        layer_schedule: LayerSchedule = "synchronous",
        residual_split: ResidualSplit = "remaining",
        form: Form = "factors",
    ) -> Instruction:
        """Return what one exchange of the round asks of the clients."""
        return Instruction(
            server_round=server_round,
            round_id=self._round_id,
            fingerprint=self.model.fingerprint,
            parameters=self.model.parameters,
            measured=measured,
            layer_schedule=layer_schedule,
            residual_split=residual_split,
            form=form,
            wire_dtype=self.wire_dtype,
            hyperparameters=self.hyperparameters,
            contexts=self.contexts,
        )

    def evaluation_instruction(self, server_round: int) -> Instruction:
        """Return what an evaluation asks of the clients."""
        return self.instruction(server_round)

    def messages(
        self, nodes: Sequence[int], instruction: Instruction, message_type: str
    ) -> list[Message]:
        """Return one message a node: the current deltas and the instruction."""
        arrays = pack_deltas(self._deltas, self.wire_dtype)
        config = {**self._config, **instruction.to_config()}
        group = str(instruction.server_round)
        return build_messages(nodes, arrays, config, message_type, group)

    def ask(
        self,
        grid: Grid,
        nodes: Sequence[int],
        instruction: Instruction,
        accept: Callable[[Message], None],
        report: RoundReport,
    ) -> list[int]:
        """Run one training exchange; return the nodes whose replies were accepted."""
        messages = self.messages(nodes, instruction, MessageType.TRAIN)
        return self.exchange(
            grid, messages, ", ".join(instruction.measured), accept, report
        )

    def exchange(
        self,
        grid: Grid,
        messages: Sequence[Message],
        what: str,
        accept: Callable[[Message], None],
        report: RoundReport,
    ) -> list[int]:
        """Send training messages; return the nodes whose replies were accepted."""
        for message in messages:
            arrays = message.content.array_records[ARRAYS]
            report.download_bytes += record_bytes(arrays)
        needed = len(messages)
        if self.min_replies is not None:
            needed = min(needed, self.min_replies)
        started = time.perf_counter()
        outcome = run_exchange(
            grid,
            messages,
            accept,
            label=f"Round {report.server_round}, {what}",
            min_replies=needed,
            timeout_s=self.exchange_timeout_s,
        )
        report.add_seconds("exchange", time.perf_counter() - started)
        report.dropped |= {str(node): why for node, why in outcome.dropped.items()}
        return outcome.accepted

    def _is_evaluated(self, server_round: int) -> bool:
        due = server_round % self.evaluate_every == 0
        return self.evaluate and (due or server_round == self._num_rounds)

    def _begin(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord
    ) -> None:
        self._deltas = read_deltas(arrays, self.model)
        self._config = dict(config)
        if server_round > 0 or not self._round_id:
            self._round_id = digest(pack_deltas(self._deltas, self.wire_dtype))

    def _finish(self, report: RoundReport) -> None:
        if self._on_round is not None:
            self._on_round(report)
