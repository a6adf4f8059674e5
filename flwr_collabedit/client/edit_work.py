"""A client's work in one exchange: measure edits for the server, or edit alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editor_names import check_exchanged
from flwr_collabedit.editors.editor import MeasuringEditor, ModelEdit
from flwr_collabedit.editors.editor_config import EditorConfig
from flwr_collabedit.editors.kinds import EditorParts, make_editor, target_config
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
    config, instruction
        Hyperparameters and the server's instruction.
    deltas : mapping of str to Tensor
        Cumulative deltas ``(d_value, d_key)`` of the server's model.
    parts : EditorParts
        What an editor of the client's is made from.
    """

    lm: LanguageModel
    config: EditorConfig
    instruction: Instruction
    deltas: Mapping[str, Tensor]
    parts: EditorParts

    def with_targets(
        self, requests: Sequence[EditRequest], z: Tensor
    ) -> tuple[Arrays, float]:
        """Work with an editor that keeps targets: measure them, or edit alone.

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
        if asked.form == "delta" or asked.layer_schedule == "local":
            return self._edit_alone(requests, z)
        return self._measure(requests, z)

    def without_targets(self, requests: Sequence[EditRequest]) -> tuple[Arrays, float]:
        """Work with any other editor; returned as by `with_targets`.

        The squared norm is that of what the edited weights are to put out in addition,
        and 0 where deltas are asked for.

        Raises
        ------
        ConfigurationError
            If statistics are asked for, and the editor has none.
        """
        editor = make_editor(self.lm, self.config, self.parts)
        asked = self.instruction
        if asked.form == "delta":
            result = editor.edit(requests, start=ModelEdit(self.deltas))
            return self._own_deltas(result.deltas), 0.0
        check_exchanged(self.config.editor, "sums")
        assert isinstance(editor, MeasuringEditor)
        with applied_deltas(self.lm, self.deltas):
            found = editor.measure(requests)
        arrays: Arrays = []
        for name in asked.measured:
            arrays += self._packed(name, *found[name])
        return arrays, sum(float(one.square().sum()) for _, one in found.values())

    def _measure(
        self, requests: Sequence[EditRequest], z: Tensor
    ) -> tuple[Arrays, float]:
        asked, config = self.instruction, target_config(self.config)
        layers = {
            name: config.layers[asked.parameters.index(name)] for name in asked.measured
        }
        with applied_deltas(self.lm, self.deltas):
            keys, residuals = measure(
                self.lm,
                list(layers.values()),
                requests,
                z,
                self.parts.contexts,
                config,
            )
        arrays: Arrays = []
        for name, layer in layers.items():
            arrays += self._packed(name, keys[layer], residuals)
        return arrays, float(residuals.square().sum())

    def _edit_alone(
        self, requests: Sequence[EditRequest], z: Tensor
    ) -> tuple[Arrays, float]:
        asked = self.instruction
        editor = make_editor(self.lm, self.config, self.parts)
        assert isinstance(editor, MemitEditor)  # it keeps targets
        # Canonical MEMIT is what one party calls synchronous.
        is_local = asked.layer_schedule == "local"
        passes = editor.write(
            requests,
            z,
            layer_schedule="synchronous" if is_local else asked.layer_schedule,
            residual_split=asked.residual_split,
            start=ModelEdit(self.deltas),
        )
        square = passes.residual_norms[0] ** 2
        if asked.form == "delta":
            return self._own_deltas(passes.deltas), square
        arrays: Arrays = []
        for name in asked.measured:
            arrays += self._packed(name, *passes.measured[name])
        return arrays, square

    def _own_deltas(self, deltas: Mapping[str, Tensor]) -> Arrays:
        """Return what the client has added to the server's deltas, packed."""
        arrays: Arrays = []
        for name in self.instruction.measured:
            own = deltas[name] - self.deltas[name].to(deltas[name])
            arrays += pack_delta(own, self.instruction.wire_dtype)
        return arrays

    def _packed(self, name: str, keys: Tensor, residuals: Tensor) -> Arrays:
        asked = self.instruction
        if asked.secure:
            task = SecureTask.from_json(asked.secure)
            return pack_secure(keys, residuals, task, name)
        return pack_statistics(keys, residuals, asked.form, asked.wire_dtype)
