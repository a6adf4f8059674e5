"""FedEdit's messages at a client: find the personal model, work, keep it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.common import Scalar
from torch import Tensor

from flwr_collabedit.client.personal_editing import PersonalEditing
from flwr_collabedit.client.personal_store import PersonalModel, PersonalStore
from flwr_collabedit.client.upload_guard import UploadGuard
from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.targets import Targets
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.mediator_payload import unpack_vectors
from flwr_collabedit.messages.payloads import (
    RESIDUAL_SQUARE,
    Arrays,
    digest,
    pack_deltas,
)
from flwr_collabedit.messages.personal_task import PersonalTask
from flwr_collabedit.models.language_model import LanguageModel

FindTargets = Callable[
    [Instruction, MemitConfig, Sequence[EditRequest], Mapping[str, Tensor], bool],
    Targets,
]


@dataclass(frozen=True)
class PersonalClient:
    """A client's model of its own, between messages and restarts.

    Parameters
    ----------
    lm : LanguageModel
        The base model; every call leaves it bit-identical.
    name : str
        The client's; the server names its vectors by it.
    store : PersonalStore
        Where the personal model is kept.
    guard : UploadGuard
        Asked before vectors are made to be shared.
    """

    lm: LanguageModel
    name: str
    store: PersonalStore
    guard: UploadGuard = field(default_factory=UploadGuard)

    def fit(
        self,
        parameters: Arrays,
        instruction: Instruction,
        memit: MemitConfig,
        own: EditedModel,
        requests: Sequence[EditRequest],
        *,
        find_targets: FindTargets,
        second_moments: Mapping[str, Tensor],
    ) -> tuple[Arrays, dict[str, Scalar]]:
        """Share the slot's mediator vectors, or write those of others.

        The personal model is kept once all of it has worked.

        Parameters
        ----------
        parameters : list of ndarray
            Others' vectors, for a re-edit.
        instruction, memit, own, requests
            What is asked, and the slot's own edits.
        find_targets : callable
            Optimises targets on the model as it is, or finds them where they were kept.
        second_moments : mapping of str to Tensor
            ``C0`` of each edited weight, ``(d_key, d_key)``.

        Raises
        ------
        PrivacyError
            If the party does not allow keys to be shared one by one.
        """
        began = time.perf_counter()
        task = PersonalTask.from_json(instruction.personal)
        if task.phase == "share":
            self.guard.check_each(self.name, requests)
        model = self.model(instruction, own)
        work = PersonalEditing(
            *(self.lm, memit, instruction, task, own.shapes), second_moments
        )
        figures: dict[str, Scalar] = {}
        arrays: Arrays = []
        if task.phase == "share":
            base = model.deltas if task.targets_on == "edited" else {}
            state = digest(pack_deltas(base, "float64"))
            asked = instruction.model_copy(update={"round_id": state})
            targets = find_targets(asked, memit, requests, base, True)
            figures["seconds-targets"] = time.perf_counter() - began
            model, arrays, square = work.share(model, requests, targets)
            figures[RESIDUAL_SQUARE] = square
        else:
            vectors = unpack_vectors(parameters, own.shapes, len(task.provenance))
            model, counts = work.re_edit(model, vectors)
            figures |= counts
        self.store.save(model, task.run_id, own.fingerprint)
        figures["seconds-measure"] = time.perf_counter() - began
        return arrays, figures

    def model(self, instruction: Instruction, own: EditedModel) -> PersonalModel:
        """Return the personal model, which must be where the message expects it.

        Raises
        ------
        ConfigurationError
            If it belongs to another run or model, or has the slot already.
        """
        task = PersonalTask.from_json(instruction.personal)
        model = self.store.load(task.run_id, own.fingerprint, own.shapes)
        slot = instruction.server_round
        is_expected = {
            "share": model.slot < slot,
            "re-edit": model.slot == slot and model.is_shared_only,
            "evaluate": model.slot <= slot,
        }[task.phase]
        if not is_expected:
            raise ConfigurationError(
                f"Client {self.name!r} is asked to {task.phase} in slot {slot}, but "
                f"the personal model in {self.store.path} is "
                f"{'in the middle of' if model.is_shared_only else 'through with'} "
                f"slot {model.slot}. Go on with the slot after it, or give a new run a "
                "run_id and a folder of its own."
            )
        return model
