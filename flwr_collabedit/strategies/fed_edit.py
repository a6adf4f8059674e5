"""FedEdit: clients keep models of their own and reuse each other's vectors.

Zhao et al. "FedLEKE: Federated Locate-then-Edit Knowledge Editing for Multi-Client
Collaboration", 2025. ``docs/fededit.md``: what is open there, and what is done here.
"""

import math
import time
from collections.abc import Mapping, Sequence
from logging import INFO
from typing import Any, ClassVar

from flwr.app import Message, MessageType, MetricRecord
from flwr.common import log
from flwr.serverapp import Grid
from torch import Tensor

from flwr_collabedit.algebra.mediator import (
    MediatorVectors,
    calibrated_alpha,
    select_relevant,
)
from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.editor_names import check_exchanged, editor_of
from flwr_collabedit.errors import ConfigurationError, PayloadError
from flwr_collabedit.messages.instruction import Form
from flwr_collabedit.messages.mediator_payload import read_vectors_reply, vectors_record
from flwr_collabedit.messages.payloads import METRICS, RE_EDIT_COUNTS, sender_of
from flwr_collabedit.messages.personal_task import (
    RE_EDIT_SQUARES,
    PersonalTask,
    Selection,
    Similarity,
    TargetsOn,
)
from flwr_collabedit.messages.replies import checked_records
from flwr_collabedit.strategies.exchange import build_messages
from flwr_collabedit.strategies.held_replies import HeldReplies
from flwr_collabedit.strategies.mediator_store import Entry, MediatorStore, joined
from flwr_collabedit.strategies.personal_models import PersonalModelsStrategy
from flwr_collabedit.strategies.round_report import ReplyFigures, RoundReport

_RE_EDIT_FIGURES = (*RE_EDIT_COUNTS, *RE_EDIT_SQUARES)


class FedEditStrategy(PersonalModelsStrategy):
    """One round is one time slot; there is no global model.

    Every client edits its own model and shares the slot's mediator vectors; when all
    have, each gets the relevant ones of the others and writes them in one batch,
    without gradient steps. The result's arrays are empty: personal models stay with
    the clients, in their folders.

    Parameters
    ----------
    model : EditedModel
        See `EditStrategy`.
    run_id : str
        Personal models belong to it; the same one goes on with them.
    alpha : float
        Threshold of the re-edit condition, in [-1, 1]; 0.4 is the default of FedLEKE's
        code. -1 switches the condition off, 1 selects nothing.
    alpha_percentile : float or None
        If given, in (0, 100]: each slot's alpha is this percentile of the cosines
        between different clients' vectors, in the place of ``alpha``.
    similarity : {"z", "delta"}
        What the cosine compares.
    selection : {"server", "client"}
        Who selects; the set is the same. ``server`` sends only what is selected,
        ``client`` (the paper) sends all of the others' vectors.
    targets_on : {"base", "edited"}
        The model on which clients optimise their targets.
    num_slots, max_vectors
        See `MediatorStore`.
    **common
        See `EditStrategy`.

    Raises
    ------
    ConfigurationError
        For an option out of range.
    """

    method: ClassVar[str] = "FedEdit"
    form: ClassVar[Form] = "mkv"

    def __init__(
        self,
        model: EditedModel,
        *,
        run_id: str,
        alpha: float = 0.4,
        alpha_percentile: float | None = None,
        similarity: Similarity = "z",
        selection: Selection = "server",
        targets_on: TargetsOn = "base",
        num_slots: int = 1,
        max_vectors: int | None = None,
        **common: Any,
    ) -> None:
        task = PersonalTask(
            run_id=run_id,
            phase="evaluate",
            targets_on=targets_on,
            similarity=similarity,
            alpha=alpha,
            selection=selection,
        )
        super().__init__(model, task=task, **common)
        check_exchanged(editor_of(self.hyperparameters), "vectors")
        if self.declarations is not None and self.declarations.presence:
            raise ConfigurationError(
                "Presence is measured on the model that all share; FedEdit has none. "
                "Leave presence out: a re-edit writes nothing twice."
            )
        if not -1 <= alpha <= 1:
            raise ConfigurationError(
                f"Expected alpha in [-1, 1], the range of a cosine, found {alpha}."
            )
        if alpha_percentile is not None and not 0 < alpha_percentile <= 100:
            raise ConfigurationError(
                "Expected alpha_percentile above 0 and at most 100, found "
                f"{alpha_percentile}."
            )
        self.alpha, self.alpha_percentile = alpha, alpha_percentile
        self.store = MediatorStore(num_slots, max_vectors)

    def edit(self, grid: Grid, nodes: Sequence[int], report: RoundReport) -> None:
        """Run the slot's two exchanges: all share before any re-edits."""
        accepted = self._share(grid, nodes, report)
        began = time.perf_counter()
        alpha = self._slot_alpha(report.server_round)
        chosen = {node: self._offered(node, report, alpha) for node in accepted}
        report.add_seconds("select", time.perf_counter() - began)
        report.mediator["alpha"] = alpha
        self._re_edit(grid, {n: c for n, c in chosen.items() if c}, alpha, report)

    def _share(
        self, grid: Grid, nodes: Sequence[int], report: RoundReport
    ) -> list[int]:
        slot, figures = report.server_round, ReplyFigures()
        task = self._task.model_copy(update={"phase": "share"})
        asked = self._asked(slot, task, self.model.parameters)

        def accept(reply: Message) -> None:
            vectors = read_vectors_reply(
                reply.content, asked, self.model.shapes, self.options.limits
            )
            self.store.check(slot, reply.metadata.src_node_id, sender_of(reply))
            held.hold(reply, vectors.to_tensors(), vectors.sizes())

        with HeldReplies() as held:
            accepted = sorted(self.ask(grid, nodes, asked, accept, report, held))
            for one in held:
                vectors = MediatorVectors.from_tensors(
                    one.tensors(), self.model.parameters
                )
                node = self.messenger.node_of(one.sender)
                self.store.add(slot, node, one.sender, vectors)
                report.num_edits += len(vectors)
                steps = int(vectors.gradient_steps.sum())
                report.count({"uploaded": len(vectors), "gradient-steps": steps})
                figures += one.figures
        report.num_clients = len(accepted)
        figures.enter(report)
        report.residual_norm_before = figures.residual_norm
        return accepted

    def _slot_alpha(self, slot: int) -> float:
        if self.alpha_percentile is None:
            return self.alpha
        groups = [self._compared(entry) for entry in self.store.of_slot(slot)]
        return calibrated_alpha(groups, self.alpha_percentile) if groups else 1.0

    def _offered(self, node: int, report: RoundReport, alpha: float) -> Any:
        """Return the vectors that travel to a client, and their provenance."""
        entries = self.store.others(node)
        report.count({"offered": sum(len(entry.vectors) for entry in entries)})
        if self._task.selection == "client":
            return joined(entries)
        own = self.store.own(report.server_round, node)
        assert own is not None  # it was accepted in this slot
        compared = self._compared(own)
        return joined(
            entries,
            [select_relevant(self._compared(e), compared, alpha) for e in entries],
        )

    def _compared(self, entry: Entry) -> Tensor:
        found: Tensor = getattr(entry.vectors, self._task.similarity)
        return found

    def _re_edit(
        self, grid: Grid, chosen: Mapping[int, Any], alpha: float, report: RoundReport
    ) -> None:
        slot, found_figures = report.server_round, list[ReplyFigures]()
        report.count(dict.fromkeys(_RE_EDIT_FIGURES, 0))
        messages: list[Message] = []
        for node, (vectors, names) in chosen.items():
            update = {"phase": "re-edit", "alpha": alpha, "provenance": names}
            asked = self._asked(slot, self._task.model_copy(update=update))
            arrays = vectors_record(
                vectors, self.model.parameters, self.options.wire_dtype
            )
            config = {**self.messenger.config, **asked.to_config()}
            messages += build_messages(
                [node], arrays, config, MessageType.TRAIN, str(slot)
            )
        expected = self._asked(slot, self._task)

        def accept(reply: Message) -> None:
            checked_records(reply.content, expected)
            found = reply.content.metric_records[METRICS]
            counts = {name: _number(found, name) for name in _RE_EDIT_FIGURES}
            found_figures.append(ReplyFigures.of(reply))
            report.count(counts)

        if messages:
            self.messenger.exchange(grid, messages, "re-edit", accept, report)
        sum(found_figures, start=ReplyFigures()).enter(report)
        counts = report.mediator
        counts["rejected"] = counts.get("offered", 0) - counts.get("selected", 0)

    def summary(self) -> None:
        """Log the strategy's options."""
        percentile = self.alpha_percentile
        shown = self.alpha if percentile is None else f"percentile {percentile}"
        log(INFO, "\t├──> Alpha: %s", shown)
        log(INFO, "\t├──> Selection: on the %s", self._task.selection)
        super().summary()


def _number(record: MetricRecord, name: str) -> float:
    value = record.get(name)
    if not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise PayloadError(f"{name} is {value!r}; expected a number from 0.")
    return value
