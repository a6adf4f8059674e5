"""What becomes of a finished round: reported, warned of, undone, kept."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from logging import INFO, WARNING

from flwr.common import log

from flwr_collabedit.strategies.checkpoint import Checkpoint
from flwr_collabedit.strategies.round_guard import RoundGuard
from flwr_collabedit.strategies.round_options import RoundOptions
from flwr_collabedit.strategies.round_report import RoundReport
from flwr_collabedit.strategies.server_state import ServerState


@dataclass
class RoundKeeper:
    """Keeps rounds' reports and states, of this run and of one that it goes on with.

    Attributes
    ----------
    options, guard
        Of the strategy.
    on_round : callable or None
        Called with the report of each finished round that was run here.
    num_rounds : int
        Rounds in all.
    completed : int
        Rounds that were taken from a checkpoint.
    reports : list of RoundReport
        Of all finished rounds.
    """

    options: RoundOptions
    guard: RoundGuard
    on_round: Callable[[RoundReport], None] | None
    num_rounds: int = 0
    completed: int = 0
    reports: list[RoundReport] = field(default_factory=list)

    def resume(self, identity: Mapping[str, str]) -> ServerState | None:
        """Return the newest checkpoint's state, ``None`` if there is none."""
        checkpoint = self._checkpoint(identity)
        found = checkpoint.load() if checkpoint else None
        if found is None:
            return None
        self.completed, state, self.reports = found
        log(INFO, "Going on after round %s of the checkpoint", self.completed)
        return state

    def has(self, server_round: int) -> bool:
        """Return whether a round was taken from a checkpoint."""
        return 0 < server_round <= self.completed

    def is_evaluated(self, server_round: int) -> bool:
        """Return whether clients are scored after a round."""
        return self.options.is_evaluated(server_round, self.num_rounds)

    def report(self, server_round: int) -> RoundReport:
        """Return the report of a round."""
        return next(r for r in self.reports if r.server_round == server_round)

    def is_refused(self, report: RoundReport) -> bool:
        """Warn of damage; return whether the round has done too much of it."""
        if report.server_round == 0:
            return False
        report.warnings = self.guard.warnings(report)
        for warning in report.warnings:
            log(WARNING, warning)
        report.refused = self.guard.refusal(report)
        if report.refused:
            log(WARNING, "Round %s is undone: %s", report.server_round, report.refused)
        return bool(report.refused)

    def finish(
        self, report: RoundReport, state: ServerState, identity: Mapping[str, str]
    ) -> None:
        """Pass a round's report on, and keep the state after it."""
        if self.has(report.server_round):
            return
        if self.on_round is not None:
            self.on_round(report)
        checkpoint = self._checkpoint(identity)
        if checkpoint and report.server_round > 0:
            checkpoint.save(report.server_round, state, self.reports)

    def _checkpoint(self, identity: Mapping[str, str]) -> Checkpoint | None:
        folder = self.options.checkpoint_folder
        if folder is None:
            return None
        return Checkpoint(folder, identity, self.options.keep_checkpoints)
