"""What every editing strategy shares: its options, and what clients declare."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from logging import INFO
from typing import Any

from flwr.app import (
    Message,
)
from flwr.common import log
from flwr.serverapp import Grid

from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.evaluation.metrics import MetricSums
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.strategies.declaration_exchange import ask_declarations
from flwr_collabedit.strategies.declarations import (
    DeclarationRules,
    decide,
    with_decisions,
)
from flwr_collabedit.strategies.evaluation_figures import own_efficacy
from flwr_collabedit.strategies.held_replies import HeldReplies
from flwr_collabedit.strategies.messenger import Messenger
from flwr_collabedit.strategies.round_guard import RoundGuard
from flwr_collabedit.strategies.round_keeper import RoundKeeper
from flwr_collabedit.strategies.round_loop import RoundLoop
from flwr_collabedit.strategies.round_options import RoundOptions
from flwr_collabedit.strategies.round_report import RoundReport
from flwr_collabedit.strategies.server_state import ServerState


class EditStrategy(RoundLoop):
    """Base of the strategies: what they say to clients and let them declare.

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
        self.keeper = RoundKeeper(self.options, guard or RoundGuard(), on_round)
        if self.keeper.guard.max_perplexity_increase is not None and not (
            self.options.evaluate and self.options.evaluate_every == 1
        ):
            raise ConfigurationError(
                "max_perplexity_increase is checked where a round is evaluated. Set "
                "evaluate_every to 1."
            )
        self.state = self._before = ServerState()

    @property
    def reports(self) -> list[RoundReport]:
        """Of all finished rounds, those that a checkpoint has included."""
        return self.keeper.reports

    def prepare(
        self, grid: Grid, nodes: Sequence[int], report: RoundReport
    ) -> Sequence[int]:
        """Let clients declare their edits, and decide; return who is to edit.

        Without the ability to take edits out, the losing edits of earlier rounds stay
        in the weights, where the winner is written over them, and count no more.
        """
        rules = self.declarations
        if rules is None:
            self.learn_names(grid, nodes, report)
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
            report.declared["overruled"] = report.declared.get("overruled", 0) + len(
                found
            )

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

    def ask(
        self,
        grid: Grid,
        nodes: Sequence[int],
        instruction: Instruction,
        accept: Callable[[Message], None],
        report: RoundReport,
        held: HeldReplies,
    ) -> list[int]:
        """Run one training exchange; return the nodes whose replies were accepted.

        ``accept`` puts what it takes into ``held``; what is left there in the end is of
        these nodes.
        """
        messages = self.messenger.messages(nodes, instruction, self.state)
        what = ", ".join(instruction.measured) or instruction.phase

        def settle() -> dict[str, str]:
            bound = self.state.bound.after(held.sizes)
            self.state = replace(self.state, bound=bound)
            return held.settle(bound, self.options.size_factor)

        return self.messenger.exchange(grid, messages, what, accept, report, settle)

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

    def learn_names(
        self, grid: Grid, nodes: Sequence[int], report: RoundReport
    ) -> None:
        """Let clients of a resumed run say who they are: node ids are not kept.

        Nobody else can be told which of its edits do not count, or asked for them.
        """
        if self.messenger.names or not self.state.took_part:
            return
        rules = DeclarationRules(take_back=True)
        ask_declarations(self.messenger, grid, nodes, self.state, rules, report)
