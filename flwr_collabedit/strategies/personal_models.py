"""What the strategies share whose clients have models of their own."""

from collections.abc import Mapping
from typing import Any, ClassVar

from flwr.app import ArrayRecord, ConfigRecord

from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.evaluation.metrics import MetricSums
from flwr_collabedit.messages.instruction import Form, Instruction
from flwr_collabedit.messages.personal_task import PersonalTask
from flwr_collabedit.strategies.edit_strategy import EditStrategy
from flwr_collabedit.strategies.personal_report import personal_figures
from flwr_collabedit.strategies.round_report import RoundReport


class PersonalModelsStrategy(EditStrategy):
    """Base of the strategies without a global model: the result's arrays are empty.

    Models stay with the clients, in their folders, under the run's id.

    Parameters
    ----------
    model : EditedModel
        See `EditStrategy`.
    task : PersonalTask
        What an evaluation asks of the clients.
    **common
        See `EditStrategy`.

    Raises
    ------
    ConfigurationError
        For an option that needs a global model.
    """

    method: ClassVar[str]
    form: ClassVar[Form]

    def __init__(self, model: EditedModel, *, task: PersonalTask, **common: Any):
        super().__init__(model, **common)
        if self.keeper.guard.max_perplexity_increase is not None:
            raise ConfigurationError(
                f"{self.method} cannot undo a round: the models are the clients' own. "
                "Leave max_perplexity_increase out."
            )
        if self.options.checkpoint_folder is not None:
            raise ConfigurationError(
                f"{self.method} has no checkpoints: its models are the clients' own, "
                "kept in their folders. Leave checkpoint_folder out."
            )
        self._task = task

    def initial_arrays(self) -> ArrayRecord:
        """Return no arrays: there is no global model."""
        return ArrayRecord()

    def evaluation_instruction(self, server_round: int) -> Instruction:
        """Return what an evaluation asks: the scores of the personal models."""
        return self._asked(server_round, self._task)

    def set_evaluation(
        self, report: RoundReport, by_node: Mapping[int, MetricSums]
    ) -> None:
        """Enter every client's scores, own and received, and their weighted means."""
        super().set_evaluation(report, by_node)
        names = {node: self.messenger.name_of(node) or str(node) for node in by_node}
        report.personal = personal_figures({names[n]: s for n, s in by_node.items()})

    def _asked(
        self, slot: int, task: PersonalTask, measured: tuple[str, ...] = ()
    ) -> Instruction:
        asked = self.messenger.instruction(slot, measured, form=self.form)
        return asked.model_copy(update={"personal": task.model_dump_json()})

    def _begin(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord
    ) -> None:
        self.messenger.config = dict(config)
        self.messenger.round_id = f"slot-{server_round}"
