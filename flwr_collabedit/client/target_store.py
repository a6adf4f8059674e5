"""A client's own folder of optimised targets, kept between exchanges and runs."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.targets import Targets
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.files import replacing
from flwr_collabedit.messages.instruction import Instruction

_FIELDS = tuple(field.name for field in fields(Targets))
_REQUESTS = "requests"


class TargetStore:
    """Targets by all that they depend on: the model's state and the request's text.

    A file holds what was optimised together and is never written to again. Its name
    covers the model, the state that the round started from, the hyperparameters and
    the context templates; its header has a hash of every request's text, never a case
    id alone. A store shared by several runs therefore never gives wrong targets.

    Parameters
    ----------
    folder : Path
        Owned by one client; made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(
        self, instruction: Instruction, requests: Sequence[EditRequest]
    ) -> tuple[dict[str, dict[str, Tensor]], list[EditRequest]]:
        """Return what is known of the targets, and the requests without any.

        Returns
        -------
        dict
            By `request_hash`, each field of `Targets` of that request, one row.
        list of EditRequest
            Each once.

        Raises
        ------
        ConfigurationError
            If a file is damaged.
        """
        wanted = {request_hash(request): request for request in requests}
        found: dict[str, dict[str, Tensor]] = {}
        pattern = f"targets-{_state(instruction)}-*.safetensors"
        for path in sorted(self.folder.glob(pattern)):
            if len(found) < len(wanted):
                found |= _rows(path, wanted.keys() - found.keys())
        return found, [r for name, r in wanted.items() if name not in found]

    def save(
        self,
        instruction: Instruction,
        requests: Sequence[EditRequest],
        targets: Targets,
    ) -> None:
        """Write the targets; a reader sees the whole file or none."""
        names = [request_hash(request) for request in requests]
        batch = hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]
        name = f"targets-{_state(instruction)}-{batch}.safetensors"
        tensors = {n: getattr(targets, n).contiguous().cpu() for n in _FIELDS}
        # Runs side by side may share the folder.
        with replacing(self.folder / name) as draft:
            save_file(tensors, draft, metadata={_REQUESTS: json.dumps(names)})


def request_hash(request: EditRequest) -> str:
    """Return a short hash of what a request asks, whatever its case id."""
    text = json.dumps([request.prompt, request.subject, request.target_new])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def join_targets(
    rows: dict[str, dict[str, Tensor]], requests: Sequence[EditRequest]
) -> Targets:
    """Return the targets of ``requests``, at least one, from their rows."""
    chosen = [rows[request_hash(request)] for request in requests]
    return Targets(**{n: torch.stack([row[n] for row in chosen]) for n in _FIELDS})


def _state(instruction: Instruction) -> str:
    identity = [
        instruction.fingerprint,
        instruction.round_id,
        instruction.hyperparameters,
        instruction.contexts,
    ]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def _rows(path: Path, wanted: set[str]) -> dict[str, dict[str, Tensor]]:
    try:
        names = _names_in(path)
        if not wanted.intersection(names):
            return {}
        tensors = load_file(path)
        places = {n: i for i, n in enumerate(names) if n in wanted}
        return {n: {f: tensors[f][i] for f in _FIELDS} for n, i in places.items()}
    except (OSError, LookupError, TypeError, ValueError, SafetensorError) as error:
        raise ConfigurationError(
            f"Expected targets in {path}, found a damaged file ({error!r}). Delete it."
        ) from error


@lru_cache(maxsize=10_000)
def _names_in(path: Path) -> tuple[str, ...]:
    """Return the hashes of a file's requests; read once, since files never change."""
    with safe_open(path, framework="pt") as file:
        return tuple(json.loads((file.metadata() or {})[_REQUESTS]))
