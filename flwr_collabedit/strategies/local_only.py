"""Local-only: every client edits a model of its own, and nobody learns from anybody.

What FedLEKE (Zhao et al., 2025) compares with as single-client editors, and the one
way there is for an editor whose edits no server can merge, such as GRACE.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.messages.instruction import Form
from flwr_collabedit.messages.payloads import sender_of
from flwr_collabedit.messages.personal_task import PersonalTask
from flwr_collabedit.messages.replies import checked_records
from flwr_collabedit.strategies.personal_models import PersonalModelsStrategy
from flwr_collabedit.strategies.round_report import ReplyFigures, RoundReport


class LocalOnlyStrategy(PersonalModelsStrategy):
    """In a round every client writes its own edits into its own model, and scores it.

    Of the edits only their number and the scores reach the server. Any editor will do:
    each client makes it from the hyperparameters, one edit going on from the last, and
    keeps what has changed, deltas or codebook, in its folder. Editors that know a
    history start each round without one.

    Parameters
    ----------
    model : EditedModel
        See `EditStrategy`.
    run_id : str
        Clients' models belong to it; the same one goes on with them.
    **common
        See `EditStrategy`.

    Raises
    ------
    ConfigurationError
        For an option that needs a global model or clients that share.
    """

    method: ClassVar[str] = "Local-only"
    form: ClassVar[Form] = "delta"

    def __init__(self, model: EditedModel, *, run_id: str, **common: Any) -> None:
        task = PersonalTask(run_id=run_id, phase="alone")
        super().__init__(model, task=task, **common)
        if self.declarations is not None:
            raise ConfigurationError(
                "Clients that edit alone have nothing to declare: no edit meets "
                "another client's. Leave declarations out."
            )

    def edit(self, grid: Grid, nodes: Sequence[int], report: RoundReport) -> None:
        """Run the one exchange: all clients edit, and say how many edits they had."""
        asked = self._asked(report.server_round, self._task)
        found: list[ReplyFigures] = []

        def accept(reply: Message) -> None:
            _, num_edits = checked_records(reply.content, asked, self.options.limits)
            found.append(ReplyFigures.of(reply))
            report.edits_by_client[sender_of(reply)] = num_edits

        messages = self.messenger.messages(nodes, asked, self.state, MessageType.TRAIN)
        accepted = self.messenger.exchange(grid, messages, "edit", accept, report)
        sum(found, start=ReplyFigures()).enter(report)
        report.num_clients = len(accepted)
        report.num_edits = sum(report.edits_by_client.values())
