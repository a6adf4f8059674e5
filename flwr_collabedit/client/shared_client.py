"""Training messages where all share one model: measure edits, or edit alone."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flwr.common import Scalar
from torch import Tensor

from flwr_collabedit.client.edit_work import EditWork
from flwr_collabedit.client.own_edits import OwnEdits
from flwr_collabedit.client.round_targets import RoundTargets
from flwr_collabedit.client.second_moments import SecondMoments
from flwr_collabedit.client.upload_guard import UploadGuard
from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.editor_names import keeps_targets
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.editor_config import EditorConfig
from flwr_collabedit.editors.kinds import EditorParts, target_config
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.payloads import (
    RESIDUAL_SQUARE,
    Arrays,
    digest,
    to_record,
    unpack_deltas,
)
from flwr_collabedit.models.language_model import LanguageModel

Figures = dict[str, Scalar]


@dataclass(frozen=True)
class SharedClient:
    """What a client does to the statistics of the one model that all edit.

    Parameters
    ----------
    lm : LanguageModel
        The base model; every call leaves it bit-identical.
    name : str
        The client's.
    edits : OwnEdits
        The party's.
    targets : RoundTargets
        Finds or optimises targets.
    second_moments : SecondMoments
        Asked only where the client is to edit alone.
    hypernetwork : Path or None
        File of the editor's trained network, where it has one.
    guard : UploadGuard
        Asked before anything is measured for a plain upload.
    """

    lm: LanguageModel
    name: str
    edits: OwnEdits
    targets: RoundTargets
    second_moments: SecondMoments
    guard: UploadGuard
    hypernetwork: Path | None = None

    def fit(
        self,
        parameters: Arrays,
        instruction: Instruction,
        config: EditorConfig,
        own: EditedModel,
    ) -> tuple[Arrays, int, Figures]:
        """Measure edits on the model that is asked for, or write them into a copy.

        Parameters
        ----------
        parameters : list of ndarray
            Cumulative delta ``(d_value, d_key)`` of every edited weight.
        instruction, config, own
            What is asked, the hyperparameters, the model's shapes.

        Returns
        -------
        list of ndarray
            Statistics or deltas of the measured weights.
        int
            Number of edits.
        dict
            Residual and seconds.

        Raises
        ------
        PrivacyError
            If the party does not allow an upload of so few edits.
        """
        requests = self._asked_for(instruction)
        # A masked upload shows nothing; how much is in the sum is not the client's.
        if not instruction.secure:
            self.guard.check_sum(self.name, requests)
        deltas: Mapping[str, Tensor] = {}
        if instruction.measured_on == "current":
            deltas = unpack_deltas(parameters, own)
        parts = EditorParts(
            ContextTemplates.from_json(instruction.contexts),
            lambda: self.second_moments(config),
            self.hypernetwork,
        )
        work = EditWork(self.lm, config, instruction, deltas, parts)
        began = measuring = time.perf_counter()
        if keeps_targets(config.editor):
            is_start, memit = (
                starts_round(instruction, parameters),
                target_config(config),
            )
            targets = self.targets.find(instruction, memit, requests, deltas, is_start)
            measuring = time.perf_counter()
            arrays, square = work.with_targets(requests, targets.z)
        else:
            arrays, square = work.without_targets(requests)
        return (
            arrays,
            len(requests),
            {
                RESIDUAL_SQUARE: square,
                "seconds-targets": measuring - began,
                "seconds-measure": time.perf_counter() - measuring,
            },
        )

    def _asked_for(self, instruction: Instruction) -> Sequence[EditRequest]:
        enlarged = EditSet.from_json(instruction.augmented)
        inactive = EditSet.from_json(instruction.inactive)
        if instruction.phase == "withdraw":
            # A whole round may have edits that were left out: they are in no sum.
            withdrawn = EditSet.from_json(instruction.withdrawn)
            return self.edits.requests_inside(withdrawn, enlarged, inactive)
        return self.edits.requests(instruction.server_round, inactive, enlarged)


def starts_round(instruction: Instruction, parameters: Arrays) -> bool:
    """Return whether targets may be optimised on the model that is asked for."""
    if instruction.measured_on == "base":
        return True
    keys = [f"{name}/delta" for name in instruction.parameters]
    return digest(to_record(keys, parameters)) == instruction.round_id
