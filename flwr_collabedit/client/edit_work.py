"""A client's work in one exchange: measure edits for the server, or edit alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.editor import ModelEdit
from flwr_collabedit.editors.layer_passes import measure
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.payloads import Arrays, pack_delta, pack_statistics
from flwr_collabedit.messages.secure_payload import SecureTask, pack_secure
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import applied_deltas


@dataclass(frozen=True)
class EditWork:
    """What an instruction asks of a client, on the model that it describes.

    Parameters
    ----------
    lm : LanguageModel
        Without the deltas; every call leaves it bit-identical.
    memit, instruction
        Hyperparameters and the server's instruction.
    deltas : mapping of str to Tensor
        Cumulative deltas ``(d_value, d_key)`` of the server's model.
    """

    lm: LanguageModel
    memit: MemitConfig
    instruction: Instruction
    deltas: Mapping[str, Tensor]

    @property
    def is_alone(self) -> bool:
        """Whether the client is to write its edits into a copy of its own."""
        asked = self.instruction
        return asked.form == "delta" or asked.layer_schedule == "local"

    def measure(
        self, requests: Sequence[EditRequest], z: Tensor
    ) -> tuple[Arrays, float]:
        """Return the statistics of the measured weights on the server's model.

        Parameters
        ----------
        requests, z
            The edits and their targets ``(n, d_model)``.

        Returns
        -------
        list of ndarray
            As `flwr_collabedit.messages.payloads.array_keys` orders them.
        float
            ``||R||_F^2`` of the undivided residuals.
        """
        asked = self.instruction
        layers = {
            name: self.memit.layers[asked.parameters.index(name)]
            for name in asked.measured
        }
        with applied_deltas(self.lm, self.deltas):
            keys, residuals = measure(
                self.lm,
                list(layers.values()),
                requests,
                z,
                ContextTemplates.from_json(asked.contexts),
                self.memit,
            )
        arrays: Arrays = []
        for name, layer in layers.items():
            arrays += self._packed(name, keys[layer], residuals)
        return arrays, float(residuals.square().sum())

    def edit_alone(
        self,
        requests: Sequence[EditRequest],
        z: Tensor,
        second_moments: Mapping[str, Tensor],
    ) -> tuple[Arrays, float]:
        """Edit a copy; return its deltas, or the statistics that they were solved from.

        Parameters
        ----------
        requests, z
            As in `measure`.
        second_moments : mapping of str to Tensor
            ``C0`` of each edited weight, ``(d_key, d_key)``.
        """
        asked = self.instruction
        contexts = ContextTemplates.from_json(asked.contexts)
        editor = MemitEditor(self.lm, self.memit, contexts, second_moments)
        # Canonical MEMIT is what one party calls synchronous.
        is_local = asked.layer_schedule == "local"
        passes = editor.write(
            requests,
            z,
            layer_schedule="synchronous" if is_local else asked.layer_schedule,
            residual_split=asked.residual_split,
            start=ModelEdit(self.deltas),
        )
        arrays: Arrays = []
        for name in asked.measured:
            if asked.form == "delta":
                own = passes.deltas[name] - self.deltas[name].to(passes.deltas[name])
                arrays += pack_delta(own, asked.wire_dtype)
            else:
                keys, residuals = passes.measured[name]
                arrays += self._packed(name, keys, residuals)
        return arrays, passes.residual_norms[0] ** 2

    def _packed(self, name: str, keys: Tensor, residuals: Tensor) -> Arrays:
        asked = self.instruction
        if asked.secure:
            task = SecureTask.from_json(asked.secure)
            return pack_secure(keys, residuals, task, name)
        return pack_statistics(keys, residuals, asked.form, asked.wire_dtype)
