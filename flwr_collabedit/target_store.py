"""A client's own folder of optimised targets, kept between the exchanges of a round."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.instruction import Instruction


class TargetStore:
    """Targets ``z``, ``(n, d_model)``, in files named by all that they depend on.

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
    ) -> Tensor | None:
        """Return the targets of these requests, or ``None`` if there are none yet."""
        path = self._path(instruction, requests)
        if not path.exists():
            return None
        targets = load_file(path)["targets"]
        if len(targets) != len(requests):
            raise ConfigurationError(
                f"Expected {len(requests)} targets in {path}, found {len(targets)}. "
                "The file is damaged; delete it."
            )
        return targets

    def save(
        self, instruction: Instruction, requests: Sequence[EditRequest], targets: Tensor
    ) -> None:
        """Write the targets; a reader sees the whole file or none."""
        path = self._path(instruction, requests)
        self.folder.mkdir(parents=True, exist_ok=True)
        # Runs side by side may share the folder.
        draft = path.with_suffix(f".{os.getpid()}.draft")
        save_file({"targets": targets.contiguous().cpu()}, draft)
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
