"""Messages at a client that edits alone: go on with its own model, and keep it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flwr.common import Scalar

from flwr_collabedit.client.local_store import LocalModel, LocalRun, LocalStore
from flwr_collabedit.client.second_moments import SecondMoments
from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.editor_config import EditorConfig
from flwr_collabedit.editors.kinds import EditorParts, make_editor
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.personal_task import PersonalTask
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.progress import ProgressLog


@dataclass(frozen=True)
class LocalClient:
    """A client's model of its own that nothing of leaves the client.

    Parameters
    ----------
    lm : LanguageModel
        The base model; every call leaves it bit-identical.
    name : str
        The client's, for progress and errors.
    store : LocalStore
        Where the model is kept.
    second_moments : SecondMoments
        Asked by editors that need them only.
    hypernetwork : Path or None
        File of the trained network; read by editors that need it only.
    """

    lm: LanguageModel
    name: str
    store: LocalStore
    second_moments: SecondMoments
    hypernetwork: Path | None = None

    def fit(
        self,
        instruction: Instruction,
        config: EditorConfig,
        requests: Sequence[EditRequest],
    ) -> dict[str, Scalar]:
        """Write the round's edits on top of the earlier ones; return the seconds.

        The model is kept once all of them are in: a round is written once or not.

        Raises
        ------
        ConfigurationError
            If the model has the round already, or belongs to another run.
        """
        began = time.perf_counter()
        model, number = self.model(instruction), instruction.server_round
        if model.server_round == number:
            raise self._out_of_turn(instruction, model)
        parts = EditorParts(
            ContextTemplates.from_json(instruction.contexts),
            lambda: self.second_moments(config),
            self.hypernetwork,
        )
        result = make_editor(self.lm, config, parts).edit(
            requests,
            start=model.edit,
            progress=ProgressLog(f"{self.name}: facts edited", len(requests)),
        )
        self.store.save(LocalModel(number, result), _run_of(instruction))
        return {"seconds-measure": time.perf_counter() - began}

    def model(self, instruction: Instruction) -> LocalModel:
        """Return the model, which no later round may have edited.

        Raises
        ------
        ConfigurationError
            If one has, or the model belongs to another run.
        """
        model = self.store.load(_run_of(instruction))
        if model.server_round > instruction.server_round:
            raise self._out_of_turn(instruction, model)
        return model

    def _out_of_turn(
        self, instruction: Instruction, model: LocalModel
    ) -> ConfigurationError:
        return ConfigurationError(
            f"Client {self.name!r} is asked for round {instruction.server_round}, but "
            f"its own model in {self.store.path} is through with round "
            f"{model.server_round}. Go on with the round after it, or give a new run a "
            "run_id and a folder of its own."
        )


def _run_of(instruction: Instruction) -> LocalRun:
    return LocalRun(
        PersonalTask.from_json(instruction.personal).run_id,
        instruction.fingerprint,
        instruction.hyperparameters,
    )
