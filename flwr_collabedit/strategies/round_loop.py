"""Flower's loop around rounds of several exchanges, with a state that can be undone."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
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

from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.evaluation.metrics import MetricSums
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.payloads import digest, pack_deltas, read_deltas
from flwr_collabedit.strategies.evaluation import read_evaluations
from flwr_collabedit.strategies.exchange import sample_nodes, wait_for_nodes
from flwr_collabedit.strategies.messenger import Messenger
from flwr_collabedit.strategies.round_keeper import RoundKeeper
from flwr_collabedit.strategies.round_options import RoundOptions
from flwr_collabedit.strategies.round_report import RoundReport
from flwr_collabedit.strategies.server_state import ServerState


class RoundLoop(Strategy):
    """What Flower calls, and when.

    A round may take several exchanges with the clients and must not hold all replies in
    memory, which Flower's one ``send_and_receive`` a round cannot do. So
    `configure_train` runs the exchanges itself, taking replies as they arrive, and
    returns no messages for Flower to send; `aggregate_train` returns what they gave.

    Attributes
    ----------
    model : EditedModel
        What is edited.
    options : RoundOptions
        Who is waited for, asked and scored.
    messenger : Messenger
        Speaks to the clients.
    keeper : RoundKeeper
        Keeps the rounds' reports and states.
    state : ServerState
        After the last round; replaced as a whole.
    """

    model: EditedModel
    options: RoundOptions
    messenger: Messenger
    keeper: RoundKeeper
    state: ServerState
    _before: ServerState
    _scoring: Sequence[int] = ()
    _num_connected = 0

    @property
    @abstractmethod
    def identity(self) -> dict[str, str]:
        """What must be the same for a run to go on from a checkpoint."""

    @abstractmethod
    def prepare(
        self, grid: Grid, nodes: Sequence[int], report: RoundReport
    ) -> Sequence[int]:
        """Do what comes before the round's edits; return who is to edit."""

    @abstractmethod
    def edit(self, grid: Grid, nodes: Sequence[int], report: RoundReport) -> None:
        """Run the round's exchanges and replace ``self.state``."""

    @abstractmethod
    def set_evaluation(
        self, report: RoundReport, by_node: Mapping[int, MetricSums]
    ) -> None:
        """Enter the clients' sums into the round's report."""

    def evaluation_instruction(self, server_round: int) -> Instruction:
        """Return what an evaluation asks of the clients."""
        return self.messenger.instruction(server_round)

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
        """Score the unedited model if wanted, run Flower's loop from zero deltas.

        Rounds that a checkpoint has are taken from it: no client is asked for them.
        """
        arrays = self.initial_arrays() if initial_arrays is None else initial_arrays
        self.open(grid, arrays, num_rounds, timeout, evaluate_config)
        result = super().start(
            grid,
            arrays,
            num_rounds,
            timeout,
            train_config,
            evaluate_config,
            evaluate_fn,
        )
        result.arrays = self._arrays()
        return result

    def open(
        self,
        grid: Grid,
        arrays: ArrayRecord,
        num_rounds: int,
        timeout: float,
        evaluate_config: ConfigRecord | None = None,
    ) -> None:
        """Do what comes before the first round: resume, or score the unedited model."""
        self.keeper.num_rounds = num_rounds
        if resumed := self.keeper.resume(self.identity):
            self.state = resumed
        elif self.options.evaluate and self.options.evaluate_before:
            self.keeper.reports.append(RoundReport(0))
            messages = self.configure_evaluate(
                0, arrays, evaluate_config or ConfigRecord(), grid
            )
            replies = grid.send_and_receive(messages, timeout=timeout)
            self.aggregate_evaluate(0, replies)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Run the round's exchanges; nothing is left for Flower to send."""
        if self.keeper.has(server_round):
            return ()
        self._begin(server_round, arrays, config)
        nodes = self._wait(grid)
        options = self.options
        asked = sample_nodes(nodes, options.fraction_train, options.seed + server_round)
        if options.min_replies is not None and options.min_replies > len(asked):
            raise AggregationError(
                f"Round {server_round}: min_replies is {options.min_replies}, but only "
                f"{len(asked)} of {len(nodes)} clients are asked. Lower min_replies or "
                "raise fraction_train."
            )
        report, before = RoundReport(server_round), self.state
        self._before = before
        try:
            self.edit(grid, self.prepare(grid, asked, report), report)
        except Exception:
            self.state = before
            raise
        self.messenger.enter_absent(nodes, report)
        for line in report.client_lines():
            log(INFO, line)
        self.keeper.reports.append(report)
        return ()

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the cumulative deltas and the figures of the round's exchanges."""
        report = self.keeper.report(server_round)
        if not self.keeper.is_evaluated(server_round):
            self._finish(report)
        return self._arrays(), report.train_metrics()

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask every client to score its own cases on the current model."""
        keeper = self.keeper
        if keeper.has(server_round) or not keeper.is_evaluated(server_round):
            return ()
        if server_round == 0:
            self._begin(server_round, arrays, config)
        self.messenger.config = dict(config)
        nodes = self._wait(grid)
        instruction = self.evaluation_instruction(server_round)
        self._scoring = nodes
        return self.messenger.messages(
            nodes, instruction, self.state, MessageType.EVALUATE
        )

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Return the scores over all clients' cases, from their sums and counts."""
        if not self.keeper.is_evaluated(server_round):
            return None
        report = self.keeper.report(server_round)
        if not self.keeper.has(server_round):
            needed = self.options.min_replies or len(self._scoring)
            instruction = self.evaluation_instruction(server_round)
            by_node, dropped = read_evaluations(
                replies, instruction, needed, self._scoring
            )
            self.set_evaluation(report, by_node)
            # Why a client's edits are not in the round says more.
            report.dropped = dropped | report.dropped
            if self.keeper.is_refused(report):
                names = list(self.messenger.names.values())
                self.state = self._before.without_round(names, server_round)
            self._finish(report)
        return MetricRecord({**report.evaluation})

    def _wait(self, grid: Grid) -> list[int]:
        options = self.options
        most = options.min_available_nodes
        nodes = wait_for_nodes(
            grid,
            self._num_connected or most,
            options.exchange_timeout_s,
            needed=options.min_replies,
        )
        # Who was waited for in vain is not waited for again.
        self._num_connected = min(most, len(nodes))
        return nodes

    def _begin(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord
    ) -> None:
        self.messenger.config = dict(config)
        if not self.state.deltas:
            deltas = read_deltas(arrays, self.model)
            self.state = replace(self.state, deltas=deltas)
        if server_round > 0 or not self.messenger.round_id:
            measured = self.measured_deltas()
            self.messenger.round_id = digest(
                pack_deltas(measured, self.options.wire_dtype)
            )

    def measured_deltas(self) -> Mapping[str, Tensor]:
        """Return the deltas of the model that a round's targets are optimised on."""
        return self.state.deltas

    def _arrays(self) -> ArrayRecord:
        return pack_deltas(self.state.deltas, "float64")

    def _finish(self, report: RoundReport) -> None:
        self.keeper.finish(report, self.state, self.identity)
