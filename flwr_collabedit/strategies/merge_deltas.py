"""What the strategies share that merge the deltas which clients have solved alone."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from logging import INFO
from typing import Any

from flwr.app import Message
from flwr.common import log
from flwr.serverapp import Grid
from torch import Tensor

from flwr_collabedit.algebra.merging import WeightedSum
from flwr_collabedit.algebra.schedule import check_schedule
from flwr_collabedit.algebra.sizes import root_mean_square
from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.editor_names import check_exchanged, editor_of, keeps_targets
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.messages.replies import read_delta_reply
from flwr_collabedit.strategies.edit_strategy import EditStrategy
from flwr_collabedit.strategies.held_replies import HeldReplies
from flwr_collabedit.strategies.round_report import ReplyFigures, RoundReport


class Merger(ABC):
    """Takes clients' deltas of one weight as they arrive and merges them."""

    @abstractmethod
    def add(self, delta: Tensor, num_edits: int) -> None:
        """Take one client's delta, ``(d_value, d_key)``, float64."""

    @abstractmethod
    def merged(self) -> Tensor:
        """Return what is added to the weight."""


class SumMerger(Merger):
    """Holds one matrix, however many clients there are.

    Parameters
    ----------
    shape : (int, int)
        ``(d_value, d_key)``.
    weight : callable
        A client's weight, from its number of edits.
    finish : callable
        The merged delta, from the weighted sum.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        weight: Callable[[int], float],
        finish: Callable[[WeightedSum], Tensor],
    ) -> None:
        self._sum = WeightedSum(*shape)
        self._weight, self._finish = weight, finish

    def add(self, delta: Tensor, num_edits: int) -> None:
        """Add the delta to the sum; it can be dropped then."""
        self._sum.add(delta, self._weight(num_edits))

    def merged(self) -> Tensor:
        """Return what ``finish`` makes of the sum."""
        return self._finish(self._sum)


class MergeDeltasStrategy(EditStrategy):
    """Each client solves its own edits; the server merges the deltas, one exchange.

    Clients need second moments, the server none. Zero edits are a delta of zeros.

    Parameters
    ----------
    model : EditedModel
        See `EditStrategy`.
    layer_schedule : {"local", "frozen"} or None
        ``None`` is ``local`` where the editor has a choice: canonical MEMIT, the
        client's own lower layers written. ``frozen``: every layer measured on the
        round's starting model; with the ``remaining`` split it is what CollabEdit's
        published code merges.
    residual_split : {"remaining", "uniform", "square-root"} or None
        Share of the residual that each layer writes; ``None`` as CollabEdit's.
    **common
        See `EditStrategy`.
    """

    def __init__(
        self,
        model: EditedModel,
        *,
        layer_schedule: str | None = None,
        residual_split: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(model, **common)
        editor = editor_of(self.hyperparameters)
        check_exchanged(editor, "deltas")
        if layer_schedule is None and keeps_targets(editor):
            layer_schedule = "local"
        self.layer_schedule, self.residual_split = check_schedule(
            layer_schedule, residual_split, editor
        )
        if self.layer_schedule == "synchronous":
            raise ConfigurationError(
                "Clients that solve alone cannot follow the 'synchronous' schedule. "
                "Use 'local' or 'frozen'."
            )

    @property
    def identity(self) -> dict[str, str]:
        """What must be the same for a run to go on from a checkpoint."""
        return {
            **super().identity,
            "layer schedule": self.layer_schedule,
            "residual split": self.residual_split,
        }

    @abstractmethod
    def merger(self, shape: tuple[int, int]) -> Merger:
        """Return what merges the deltas, ``(d_value, d_key)``, of one weight."""

    def edit(self, grid: Grid, nodes: Sequence[int], report: RoundReport) -> None:
        """Run the one exchange and add the merged deltas."""
        shapes = self.model.shapes
        mergers = {name: self.merger(shape) for name, shape in shapes.items()}
        figures = ReplyFigures()
        instruction = self.messenger.instruction(
            report.server_round,
            self.model.parameters,
            layer_schedule=self.layer_schedule,
            residual_split=self.residual_split,
            form="delta",
        )

        def accept(reply: Message) -> None:
            deltas, num_edits = read_delta_reply(
                reply.content, instruction, shapes, self.options.limits
            )
            sizes = {
                f"delta of {name}": root_mean_square(delta, num_edits)
                for name, delta in deltas.items()
            }
            held.hold(reply, deltas, sizes)

        with HeldReplies() as held:
            accepted = self.ask(grid, nodes, instruction, accept, report, held)
            for one in held:
                for name, delta in one.tensors().items():
                    mergers[name].add(delta, one.num_edits)
                report.num_edits += one.num_edits
                report.edits_by_client[one.sender] = one.num_edits
                figures += one.figures
        report.num_clients = len(accepted)
        figures.enter(report)
        report.sweep_residual_norms = [figures.residual_norm]
        report.residual_norm_before = figures.residual_norm
        began = time.perf_counter()
        deltas = dict(self.state.deltas)
        for name in shapes:
            # Popped, so that what a merger holds is free before the next one works.
            deltas[name] = deltas[name] + mergers.pop(name).merged()
        self.state = replace(self.state, deltas=deltas)
        report.add_seconds("merge", time.perf_counter() - began)

    def summary(self) -> None:
        """Log the strategy's options."""
        log(INFO, "\t├──> Layer schedule: %s", self.layer_schedule)
        log(INFO, "\t├──> Residual split: %s", self.residual_split)
        super().summary()
