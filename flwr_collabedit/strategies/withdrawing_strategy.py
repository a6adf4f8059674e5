"""What CollabEdit does to edits of earlier rounds: sum them, or take them out again."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from flwr.app import Message
from flwr.serverapp import Grid
from torch import Tensor

from flwr_collabedit.algebra.history import EditHistory
from flwr_collabedit.algebra.schedule import LayerSchedule, ResidualSplit
from flwr_collabedit.errors import ConfigurationError, WithdrawalError
from flwr_collabedit.messages.contributions import Contribution
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.messages.instruction import Form, Instruction, Phase
from flwr_collabedit.messages.payloads import sender_of
from flwr_collabedit.messages.replies import read_reply
from flwr_collabedit.strategies.edit_strategy import EditStrategy
from flwr_collabedit.strategies.round_report import RoundReport
from flwr_collabedit.strategies.withdrawal import (
    Withdrawal,
    without_contribution,
    without_ledger_entries,
)


class WithdrawingStrategy(EditStrategy, ABC):
    """A strategy that sums edit statistics, from which edits can be subtracted.

    Attributes
    ----------
    layer_schedule, residual_split, form
        See `flwr_collabedit.strategies.CollabEditStrategy`.
    withdrawals : tuple of Withdrawal
        What is taken back before which round.
    """

    layer_schedule: LayerSchedule
    residual_split: ResidualSplit
    form: Form
    withdrawals: tuple[Withdrawal, ...]

    @property
    def history(self) -> EditHistory:
        """What earlier rounds left behind."""
        return self.state.history

    def measured_deltas(self) -> Mapping[str, Tensor]:
        """Return the deltas of the model that targets are optimised on: D4S's none."""
        if not self.history.is_from_base:
            return super().measured_deltas()
        return {name: torch.zeros_like(d) for name, d in self.state.deltas.items()}

    def prepare(
        self, grid: Grid, nodes: Sequence[int], report: RoundReport
    ) -> Sequence[int]:
        """Take back what is due before this round, then let clients declare."""
        self.learn_names(grid, nodes, report)
        due = [w for w in self.withdrawals if w.at_round == report.server_round]
        for withdrawal in due:
            rounds = withdrawal.rounds_by_client(self.state)
            if self.form == "factors":
                for name, chosen in sorted(rounds.items()):
                    before = self.state.ledger.num_edits(name)
                    self.state = without_ledger_entries(self.state, name, chosen)
                    left = self.state.ledger.num_edits(name)
                    report.count_withdrawn(before - left)
            else:
                edits = {n: EditSet.of(dict.fromkeys(r)) for n, r in rounds.items()}
                self.take_out(grid, edits, report)
        if due:
            self._settle()
        return super().prepare(grid, nodes, report)

    def take_back(
        self, grid: Grid, edits: Mapping[str, EditSet], report: RoundReport
    ) -> None:
        """Take out what clients wish to, also where the round is undone later."""
        self.take_out(grid, edits, report)
        if edits:
            self._settle()

    def take_out(
        self, grid: Grid, edits: Mapping[str, EditSet], report: RoundReport
    ) -> None:
        """Subtract edits of earlier rounds; their clients measure them again."""
        if not self.history.is_from_base:
            super().take_out(grid, edits, report)
            return
        for server_round in sorted(
            {r for found in edits.values() for r in found.rounds}
        ):
            chosen = {
                name: found.of_round(server_round) for name, found in edits.items()
            }
            self._take_out_round(grid, {n: e for n, e in chosen.items() if e}, report)

    def _take_out_round(
        self, grid: Grid, edits: Mapping[str, EditSet], report: RoundReport
    ) -> None:
        instruction = self.asked(report.server_round, self.model.parameters, "withdraw")
        found: dict[str, Mapping[str, Contribution]] = {}
        shapes, limits = self.model.shapes, self.options.limits

        def accept(reply: Message) -> None:
            name = sender_of(reply)
            found[name] = read_reply(reply.content, instruction, shapes, limits)

        by_node = {self.messenger.node_of(name): e for name, e in edits.items()}
        messages = self.messenger.messages(
            list(by_node), instruction, self.state, withdrawn=by_node
        )
        self.messenger.exchange(grid, messages, "withdraw", accept, report)
        for name in sorted(edits):
            if name not in found:
                raise WithdrawalError(
                    f"Expected the statistics of what client {name!r} takes back, "
                    "found no valid reply. Try again when it is there."
                )
            self.state = without_contribution(
                self.state, name, edits[name], found[name]
            )
            report.count_withdrawn(next(iter(found[name].values())).num_edits)

    @abstractmethod
    def solved_again(self) -> dict[str, Tensor]:
        """Return the deltas of the edits that are in the sums now."""

    def _settle(self) -> None:
        """Go on from the weights without what was taken back, and return to them."""
        self.state = replace(self.state, deltas=self.solved_again())
        self._before = self.state

    def asked(
        self, server_round: int, measured: tuple[str, ...], phase: Phase = "edit"
    ) -> Instruction:
        """Return what a training exchange of the round asks of the clients."""
        return self.messenger.instruction(
            server_round,
            measured,
            layer_schedule=self.layer_schedule,
            residual_split=self.residual_split,
            form=self.form,
            phase=phase,
            measured_on="base" if self.history.is_from_base else "current",
        )

    def check_withdrawals(self) -> None:
        """Check that edits can be taken back if they are to be.

        Raises
        ------
        ConfigurationError
            If not.
        """
        may_withdraw = self.declarations is not None and self.declarations.take_back
        if not self.history.is_from_base and (self.withdrawals or may_withdraw):
            raise ConfigurationError(
                f"History {self.history.option!r} cannot take edits back: later rounds "
                "were measured on a model that had them. Use history 'd4s'."
            )
