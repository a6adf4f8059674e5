"""CollabEdit: clients' edits merged into exactly what one party would have written.

Zheng et al. "CollabEdit: Towards Non-destructive Collaborative Knowledge Editing",
ICLR 2025, https://arxiv.org/abs/2410.09508, section 4. The paper merges
``sum_i Delta_i (C + K_i K_i^T) (C + sum_j K_j K_j^T)^-1``; since
``Delta_i (C + K_i K_i^T) = R_i K_i^T``, the server needs only two sums.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from logging import INFO
from typing import Any

from flwr.app import Message
from flwr.common import log
from flwr.serverapp import Grid
from torch import Tensor

from flwr_collabedit.algebra.factors import SealedFactors
from flwr_collabedit.algebra.history import EditHistory, check_history
from flwr_collabedit.algebra.ledger import LedgerEntry
from flwr_collabedit.algebra.priors import Priors
from flwr_collabedit.algebra.running_sum import StatisticsSum
from flwr_collabedit.algebra.schedule import (
    check_schedule,
    check_sweeps,
    exchange_groups,
    residual_share,
    sweeps_settled,
)
from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.editor_names import check_exchanged, editor_of
from flwr_collabedit.errors import (
    ConfigurationError,
    SecondMomentError,
)
from flwr_collabedit.messages.contributions import (
    as_statistics,
    from_tensors,
    sizes_of,
    to_tensors,
)
from flwr_collabedit.messages.instruction import Form
from flwr_collabedit.messages.replies import (
    check_same_count,
    has_one_key_an_edit,
    read_reply,
)
from flwr_collabedit.strategies.held_replies import HeldReplies
from flwr_collabedit.strategies.round_report import ReplyFigures, RoundReport
from flwr_collabedit.strategies.secure_sum import SecureAggregation, SecureSummation
from flwr_collabedit.strategies.server_state import ServerState
from flwr_collabedit.strategies.withdrawal import Withdrawal
from flwr_collabedit.strategies.withdrawing_strategy import WithdrawingStrategy


class CollabEditStrategy(WithdrawingStrategy):
    """Sum the clients' edit statistics, solve once: merged equals pooled.

    Parameters
    ----------
    model : EditedModel
        See `EditStrategy`.
    priors : mapping of str to Prior
        What the solve of every edited weight leaves alone, see
        `flwr_collabedit.algebra.priors`; MEMIT's are ``ridge_priors`` of second moments
        ``C0 = E[k k^T]`` and of ``lambda``. Only the server needs them.
    layer_schedule : {"synchronous", "frozen", "local"} or None
        ``None`` is the editor's own. ``synchronous`` takes one exchange a layer, each
        measured on the global model with the lower layers of this round merged:
        canonical MEMIT. ``frozen`` takes one exchange in all, every layer measured on
        the round's starting model. ``local``, the paper's text, too: each client runs
        canonical MEMIT alone, for which it needs second moments, and sends what it
        measured on its own lower layers. The merge then equals pooled at the first
        layer only.
    residual_split : {"remaining", "uniform", "square-root", "whole"} or None
        Share of the residual that each layer writes; ``None`` is ``uniform`` for
        frozen, otherwise the editor's own (MEMIT: ``remaining``, PMET:
        ``square-root``).
    sweeps : int
        Passes over the layers in a round, at most; 1 is canonical MEMIT. In each
        further one the clients measure again on the current model (same targets) and
        the server takes the proximal step on what is left, see ``docs/method.md``.
    sweep_tolerance : float
        Stops before, see `flwr_collabedit.algebra.schedule.sweeps_settled`; 0 never.
    form : {"factors", "dense"}
        ``factors`` is lossless and smaller as long as a client has fewer edits than
        ``d_key``; ``dense`` has the same shape for every client.
    history : {"none", "dynamic-covariance", "d4s"}
        What earlier rounds mean for a round, see `flwr_collabedit.algebra.history`.
        With ``d4s``, which takes the ``frozen`` schedule, clients measure on the base
        model and the order of rounds is irrelevant.
    beta_0, beta_1 : float
        Of ``dynamic-covariance``.
    withdrawals : sequence of Withdrawal
        What is taken back before which round; ``d4s`` only. With ``factors`` from the
        server's ledger, with ``dense``, where it keeps none, by asking the clients.
    secure : SecureAggregation or None
        Sums by secure aggregation: the server sees no client's statistics. With
        ``dense`` only, and where nothing is taken back, which would show it.
    **common
        See `EditStrategy`.

    Notes
    -----
    Replies are summed as they arrive, in pairs of float64: their order does not show,
    see `flwr_collabedit.algebra.running_sum`. A client that is left out of a later
    sweep is left out of its minimum too: the step forgets its edits again.
    """

    def __init__(
        self,
        model: EditedModel,
        priors: Priors,
        *,
        layer_schedule: str | None = None,
        residual_split: str | None = None,
        sweeps: int = 1,
        sweep_tolerance: float = 0.0,
        form: Form = "factors",
        withdrawals: Sequence[Withdrawal] = (),
        history: str = "none",
        beta_0: float = 1.0,
        beta_1: float = 1.0,
        secure: SecureAggregation | None = None,
        **common: Any,
    ) -> None:
        super().__init__(model, **common)
        editor = editor_of(self.hyperparameters)
        check_exchanged(editor, "sums")
        self.layer_schedule, self.residual_split = check_schedule(
            layer_schedule, residual_split, editor
        )
        check_sweeps(self.layer_schedule, self.residual_split, sweeps, sweep_tolerance)
        self.sweeps, self.sweep_tolerance = sweeps, sweep_tolerance
        option = check_history(history, self.layer_schedule, sweeps, beta_0, beta_1)
        self.state = ServerState(history=EditHistory(option, beta_0, beta_1))
        self.withdrawals = tuple(withdrawals)
        _check_priors(model, priors)
        self.priors = dict(priors)
        if form not in ("factors", "dense"):
            raise ConfigurationError(
                f"Expected form 'factors' or 'dense', found {form!r}: CollabEdit sums "
                "statistics. The strategies that merge deltas have no form to choose."
            )
        self.form: Form = form
        self.check_withdrawals()
        self.secure = secure
        if secure is not None:
            takes_out = history == "d4s" and self.declarations is not None
            secure.check(form, self.options, takes_out or bool(self.withdrawals))

    @property
    def identity(self) -> dict[str, str]:
        """What must be the same for a run to go on from a checkpoint."""
        return {
            **super().identity,
            "layer schedule": self.layer_schedule,
            "residual split": self.residual_split,
            "sweeps": str((self.sweeps, self.sweep_tolerance)),
            "priors": str(
                [f"{float(one.key_squares.sum()):.6g}" for one in self.priors.values()]
            ),
            "form": self.form,
            "history": str((self.history.option, *self.history.betas)),
            **({"secure": str(self.secure)} if self.secure else {}),
        }

    def edit(self, grid: Grid, nodes: Sequence[int], report: RoundReport) -> None:
        """Run sweeps, each of one exchange a group of layers, solving after each."""
        start = dict(self.state.deltas)
        norms = report.sweep_residual_norms
        totals: dict[str, StatisticsSum] = {}
        for _ in range(self.sweeps):
            nodes = self._sweep(grid, nodes, start, report, totals)
            if sweeps_settled(norms, self.sweep_tolerance):
                break
        names = [self.messenger.name_of(node) for node in nodes]
        state = self.state.with_participants(
            sorted(n for n in names if report.edits_by_client.get(n)),
            report.server_round,
        )
        self.state = replace(state, history=state.history.plus(totals))
        report.residual_norm_before = norms[0]
        report.num_clients = len(nodes)

    def solved_again(self) -> dict[str, Tensor]:
        """Return the deltas of the edits that are in the sums now."""
        return {
            name: self._solved(name, StatisticsSum.zero(*shape), None)
            for name, shape in self.model.shapes.items()
        }

    def summary(self) -> None:
        """Log the strategy's options."""
        log(INFO, "\t├──> Layer schedule: %s", self.layer_schedule)
        log(INFO, "\t├──> Sweeps: %s", self.sweeps)
        log(INFO, "\t├──> Form: %s", self.form)
        log(INFO, "\t├──> History: %s", self.history.option)
        log(INFO, "\t├──> Secure aggregation: %s", self.secure or "no")
        super().summary()

    def _sweep(
        self,
        grid: Grid,
        nodes: Sequence[int],
        start: Mapping[str, Tensor],
        report: RoundReport,
        totals: dict[str, StatisticsSum],
    ) -> Sequence[int]:
        """Pass over the layers once; return the nodes that took part to the end.

        What each layer was solved from is put into ``totals``, for the history.
        """
        first = not report.sweep_residual_norms
        groups = exchange_groups(self.model.parameters, self.layer_schedule)
        for index, measured in enumerate(groups):
            found, figures, nodes = self._sum_statistics(grid, nodes, measured, report)
            if self.history.option != "none":  # nobody reads them, and they are large
                totals.update(found)
            if index == 0:
                report.sweep_residual_norms.append(figures.residual_norm)
                report.num_edits = found[measured[0]].num_edits
            began = time.perf_counter()
            deltas = dict(self.state.deltas)
            for name, total in found.items():
                written = None if first else deltas[name] - start[name]
                deltas[name] = self._solved(name, total, written)
            self.state = replace(self.state, deltas=deltas)
            report.add_seconds("solve", time.perf_counter() - began)
        return nodes

    def _sum_statistics(
        self,
        grid: Grid,
        nodes: Sequence[int],
        measured: tuple[str, ...],
        report: RoundReport,
    ) -> tuple[dict[str, StatisticsSum], ReplyFigures, list[int]]:
        instruction = self.asked(report.server_round, measured)
        shapes = self.model.shapes
        if self.secure:
            priors = {name: self.priors[name] for name in measured}
            summation = SecureSummation(self.secure, self.messenger, shapes)
            return summation.ask(grid, nodes, instruction, self.state, priors, report)
        totals = {name: StatisticsSum.zero(*shapes[name]) for name in measured}
        figures, ledger = ReplyFigures(), self.state.ledger

        def accept(reply: Message) -> None:
            found = read_reply(reply.content, instruction, shapes, self.options.limits)
            check_same_count(reply, report.edits_by_client)
            sizes = sizes_of(found, one_key_an_edit=has_one_key_an_edit(instruction))
            held.hold(reply, to_tensors(found), sizes)

        with HeldReplies() as held:
            accepted = self.ask(grid, nodes, instruction, accept, report, held)
            for reply in held:
                found = from_tensors(reply.tensors(), measured, reply.num_edits)
                for name in measured:
                    totals[name] = totals[name].plus(as_statistics(found[name]))
                figures += reply.figures
                report.edits_by_client[reply.sender] = reply.num_edits
                factors = {
                    n: f for n, f in found.items() if isinstance(f, SealedFactors)
                }
                if factors and self.history.is_from_base:
                    number = report.server_round
                    ledger = ledger.plus(LedgerEntry(reply.sender, number, factors))
        self.state = replace(self.state, ledger=ledger)
        figures.enter(report)
        return totals, figures, accepted

    def _solved(
        self, name: str, total: StatisticsSum, written: Tensor | None
    ) -> Tensor:
        names = self.model.parameters
        share = residual_share(names.index(name), len(names), self.residual_split)
        delta = self.state.deltas[name]
        return self.history.solve(name, total, self.priors[name], share, delta, written)


def _check_priors(model: EditedModel, priors: Priors) -> None:
    for name, (_, d_key) in model.shapes.items():
        found = priors.get(name)
        if found is None or found.d_key != d_key:
            width = "none" if found is None else f"one of width {found.d_key}"
            raise SecondMomentError(
                f"Expected a prior over keys of width {d_key} for {name!r}, found "
                f"{width}. Make it from a second moment of the model that is edited."
            )
