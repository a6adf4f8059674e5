"""What every editing strategy shares: Flower's loop, the messages, the state."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from logging import INFO, WARNING
from typing import Any

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

from flwr_collabedit.edit_set import EditSet
from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.evaluation.metrics import MetricSums
from flwr_collabedit.instruction import Instruction
from flwr_collabedit.payloads import digest, pack_deltas, read_deltas
from flwr_collabedit.strategies.checkpoint import Checkpoint
from flwr_collabedit.strategies.declaration_exchange import ask_declarations
from flwr_collabedit.strategies.declarations import (
    DeclarationRules,
    decide,
    with_decisions,
)
from flwr_collabedit.strategies.evaluation import read_evaluations
from flwr_collabedit.strategies.evaluation_figures import own_efficacy
from flwr_collabedit.strategies.exchange import sample_nodes, wait_for_nodes
from flwr_collabedit.strategies.messenger import Messenger
from flwr_collabedit.strategies.round_guard import RoundGuard
from flwr_collabedit.strategies.round_options import RoundOptions
from flwr_collabedit.strategies.round_report import RoundReport
from flwr_collabedit.strategies.server_state import ServerState


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
    declarations : DeclarationRules or None
        What clients declare before they edit, one exchange a round more: it finds edits
        that the model has already or that contradict each other, and lets clients take
        edits back. ``None``: nothing.
    guard : RoundGuard or None
        Bounds on the damage that a round may do; ``None`` warns at the defaults.
    on_round : callable or None
        Called with the `RoundReport` of each finished round, 0 included; not for
        rounds that a checkpoint has.
    **options
        See `RoundOptions`.
    """

    def __init__(
        self,
        model: EditedModel,
        *,
        hyperparameters: str,
        contexts: str,
        declarations: DeclarationRules | None = None,
        guard: RoundGuard | None = None,
        on_round: Callable[[RoundReport], None] | None = None,
        **options: Any,
    ) -> None:
        self.model, self.hyperparameters = model, hyperparameters
        self.options = RoundOptions(**options)
        self.messenger = Messenger(model, hyperparameters, contexts, self.options)
        self.declarations = declarations
        self.guard = guard or RoundGuard()
        if self.guard.max_perplexity_increase is not None and not (
            self.options.evaluate and self.options.evaluate_every == 1
        ):
            raise ConfigurationError(
                "max_perplexity_increase is checked where a round is evaluated. Set "
                "evaluate_every to 1."
            )
        self.state = self._before = ServerState()
        self.reports: list[RoundReport] = []
        self._on_round = on_round
        self._completed = self._num_rounds = 0

    @abstractmethod
    def edit(self, grid: Grid, nodes: Sequence[int], report: RoundReport) -> None:
        """Run the round's exchanges and replace ``self.state``."""

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
        self._num_rounds = num_rounds
        if resumed := self._resume():
            self._completed, self.state, self.reports = resumed
            log(INFO, "Going on after round %s of the checkpoint", self._completed)
        elif self.options.evaluate and self.options.evaluate_before:
            self.reports.append(RoundReport(0))
            messages = self.configure_evaluate(
                0, arrays, evaluate_config or ConfigRecord(), grid
            )
            replies = grid.send_and_receive(messages, timeout=timeout)
            self.aggregate_evaluate(0, replies)
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

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Run the round's exchanges; nothing is left for Flower to send."""
        if server_round <= self._completed:
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
            if self.state.took_part and not self.messenger.names:
                self._learn_names(grid, nodes, report)
            self.edit(grid, self.prepare(grid, asked, report), report)
        except Exception:
            self.state = before
            raise
        self.reports.append(report)
        return ()

    def prepare(
        self, grid: Grid, nodes: Sequence[int], report: RoundReport
    ) -> Sequence[int]:
        """Let clients declare their edits, and decide; return who is to edit.

        Without the ability to take edits out, the losing edits of earlier rounds stay
        in the weights, where the winner is written over them, and count no more.
        """
        rules = self.declarations
        if rules is None:
            return nodes
        declared, accepted = ask_declarations(
            self.messenger, grid, nodes, self.state, rules, report
        )
        decisions = decide(rules, self.state, declared, report.server_round)
        self.take_back(grid, decisions.taken_back, report)
        self.state = with_decisions(self.state, decisions)
        report.declared |= decisions.counts
        self.take_out(grid, decisions.withdrawn, report)
        return accepted

    def take_back(
        self, grid: Grid, edits: Mapping[str, EditSet], report: RoundReport
    ) -> None:
        """Take out what clients wish to, also where the round is undone later."""
        self.take_out(grid, edits, report)
        self._before = self.state

    def take_out(
        self, grid: Grid, edits: Mapping[str, EditSet], report: RoundReport
    ) -> None:
        """Let some clients' edits of earlier rounds count no more."""
        for name, found in sorted(edits.items()):
            self.state = self.state.without_edits(name, found)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the cumulative deltas and the figures of the round's exchanges."""
        report = self._report(server_round)
        if not self._is_evaluated(server_round):
            self._finish(report)
        return self._arrays(), report.train_metrics()

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask every client to score its own cases on the current model."""
        is_done = 0 < server_round <= self._completed
        if is_done or not self._is_evaluated(server_round):
            return ()
        if server_round == 0:
            self._begin(server_round, arrays, config)
        self.messenger.config = dict(config)
        nodes = self._wait(grid)
        instruction = self.evaluation_instruction(server_round)
        self._num_asked = len(nodes)
        return self.messenger.messages(
            nodes, instruction, self.state, MessageType.EVALUATE
        )

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Return the scores over all clients' cases, from their sums and counts."""
        if not self._is_evaluated(server_round):
            return None
        report = self._report(server_round)
        if server_round == 0 or server_round > self._completed:
            needed = self.options.min_replies or self._num_asked
            instruction = self.evaluation_instruction(server_round)
            by_node, dropped = read_evaluations(replies, instruction, needed)
            self.set_evaluation(report, by_node)
            report.dropped |= dropped
            self._check(report)
            self._finish(report)
        return MetricRecord({**report.evaluation})

    def set_evaluation(
        self, report: RoundReport, by_node: Mapping[int, MetricSums]
    ) -> None:
        """Enter the sums over all clients' cases into the round's report."""
        report.set_evaluation(MetricSums.merge(by_node.values()))
        for node, sums in by_node.items():
            efficacy = own_efficacy(sums, report.server_round)
            if efficacy is not None:
                name = self.messenger.name_of(node) or str(node)
                report.efficacy_by_client[name] = efficacy

    def summary(self) -> None:
        """Log what is edited and what a round needs."""
        log(INFO, "\t├──> Edited weights: %s", ", ".join(self.model.parameters))
        log(INFO, "\t├──> Wire dtype: %s", self.options.wire_dtype)
        waited = self.options.min_available_nodes
        log(INFO, "\t└──> Clients to wait for: %s", waited)

    def evaluation_instruction(self, server_round: int) -> Instruction:
        """Return what an evaluation asks of the clients."""
        return self.messenger.instruction(server_round)

    def ask(
        self,
        grid: Grid,
        nodes: Sequence[int],
        instruction: Instruction,
        accept: Callable[[Message], None],
        report: RoundReport,
    ) -> list[int]:
        """Run one training exchange; return the nodes whose replies were accepted."""
        messages = self.messenger.messages(nodes, instruction, self.state)
        what = ", ".join(instruction.measured) or instruction.phase
        return self.messenger.exchange(grid, messages, what, accept, report)

    @property
    def identity(self) -> dict[str, str]:
        """What must be the same for a run to go on from a checkpoint."""
        return {
            "strategy": type(self).__name__,
            "model": self.model.fingerprint,
            "hyperparameters": self.hyperparameters,
            "contexts": self.messenger.contexts,
            "wire dtype": self.options.wire_dtype,
        }

    def _wait(self, grid: Grid) -> list[int]:
        options = self.options
        return wait_for_nodes(
            grid, options.min_available_nodes, options.exchange_timeout_s
        )

    def _learn_names(
        self, grid: Grid, nodes: Sequence[int], report: RoundReport
    ) -> None:
        """Let clients of a resumed run say who they are: node ids are not kept.

        Nobody else can be told which of its edits do not count, or asked for them.
        """
        rules = DeclarationRules(take_back=True)
        ask_declarations(self.messenger, grid, nodes, self.state, rules, report)

    def _report(self, server_round: int) -> RoundReport:
        return next(r for r in self.reports if r.server_round == server_round)

    def _check(self, report: RoundReport) -> None:
        """Warn of damage, and undo a round that has done too much."""
        if report.server_round == 0:
            return
        report.warnings = self.guard.warnings(report)
        for warning in report.warnings:
            log(WARNING, warning)
        report.refused = self.guard.refusal(report)
        if report.refused:
            log(WARNING, "Round %s is undone: %s", report.server_round, report.refused)
            self.state = self._before

    def _is_evaluated(self, server_round: int) -> bool:
        return self.options.is_evaluated(server_round, self._num_rounds)

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

    def _checkpoint(self) -> Checkpoint | None:
        options = self.options
        if options.checkpoint_folder is None:
            return None
        return Checkpoint(
            options.checkpoint_folder, self.identity, options.keep_checkpoints
        )

    def _resume(self) -> tuple[int, ServerState, list[RoundReport]] | None:
        checkpoint = self._checkpoint()
        return checkpoint.load() if checkpoint else None

    def _finish(self, report: RoundReport) -> None:
        if report.server_round <= self._completed and report.server_round > 0:
            return
        if self._on_round is not None:
            self._on_round(report)
        checkpoint = self._checkpoint()
        if checkpoint and report.server_round > 0:
            checkpoint.save(report.server_round, self.state, self.reports)
