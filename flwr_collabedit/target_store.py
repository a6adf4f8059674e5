"""A client's own folder of optimised targets, kept between the exchanges of a round."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from safetensors.torch import load_file, save_file

from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.targets import Targets
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.instruction import Instruction

_FIELDS = {field.name for field in fields(Targets)}


class TargetStore:
    """Targets of ``n`` requests, in files named by all that they depend on.

    The name covers the model, the state that the round started from, the
    hyperparameters, the context templates and every request's text, never a case id
    alone. A store shared by several runs therefore never gives wrong targets.

    Parameters
    ----------
    folder : Path
        Owned by one client; made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(
        self, instruction: Instruction, requests: Sequence[EditRequest]
    ) -> Targets | None:
        """Return the targets of these requests, or ``None`` if there are none yet."""
        path = self._path(instruction, requests)
        if not path.exists():
            return None
        found = load_file(path)
        if set(found) != _FIELDS or len(found["z"]) != len(requests):
            raise ConfigurationError(
                f"Expected {len(requests)} targets in {path}, found something else. "
                "The file is damaged; delete it."
            )
        return Targets(**found)

    def save(
        self,
        instruction: Instruction,
        requests: Sequence[EditRequest],
        targets: Targets,
    ) -> None:
        """Write the targets; a reader sees the whole file or none."""
        path = self._path(instruction, requests)
        self.folder.mkdir(parents=True, exist_ok=True)
        # Runs side by side may share the folder.
        draft = path.with_suffix(f".{os.getpid()}.draft")
        tensors = {name: getattr(targets, name) for name in _FIELDS}
        save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, draft)
        draft.replace(path)

    def _path(self, instruction: Instruction, requests: Sequence[EditRequest]) -> Path:
        identity = [
            instruction.fingerprint,
            instruction.round_id,
            instruction.hyperparameters,
            instruction.contexts,
            *([r.prompt, r.subject, r.target_new] for r in requests),
        ]
        name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
        return self.folder / f"targets-{name}.safetensors"
