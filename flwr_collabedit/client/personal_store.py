"""A client's personal model on disk: what FedEdit's slots have made of it so far."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from flwr_collabedit.algebra.low_rank import extended_basis, to_low_rank
from flwr_collabedit.algebra.mediator import MediatorVectors
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.files import replacing
from flwr_collabedit.messages.mediator_payload import Shapes, no_vectors

FILE = "personal_model.safetensors"


@dataclass(frozen=True)
class PersonalModel:
    """What a client has made of its model.

    Attributes
    ----------
    slot : int
        The last slot whose edits are in; 0 before the first.
    is_shared_only : bool
        Whether that slot's re-edit is still to come.
    deltas : dict of str to Tensor
        Cumulative delta ``(d_value, d_key)`` of each edited weight, float64.
    bases : dict of str to Tensor
        Orthonormal basis ``(d_value, r)`` of each delta's columns, float64.
    own : MediatorVectors
        Of the client's own edits of all slots.
    slot_size : int
        How many of them are of the last slot; they come last.
    received : tuple of str
        Provenance of the vectors of others that were written.
    """

    slot: int
    is_shared_only: bool
    deltas: dict[str, Tensor]
    bases: dict[str, Tensor]
    own: MediatorVectors
    slot_size: int = 0
    received: tuple[str, ...] = field(default=())

    @classmethod
    def new(cls, shapes: Shapes) -> "PersonalModel":
        """Return the state of a client whose model is still the base model."""
        zeros = {
            name: torch.zeros(shape, dtype=torch.float64)
            for name, shape in shapes.items()
        }
        bases = {name: delta[:, :0] for name, delta in zeros.items()}
        return cls(0, False, zeros, bases, no_vectors(shapes))

    def written(
        self, deltas: dict[str, Tensor], residuals: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return new cumulative deltas on the CPU, and their bases.

        Parameters
        ----------
        deltas : dict of str to Tensor
            The new cumulative deltas, ``(d_value, d_key)``.
        residuals : dict of str to Tensor
            What was written on top of the old ones, ``(d_value, n)``.
        """
        bases = {
            name: extended_basis(self.bases[name], residuals[name].double().cpu())
            for name in deltas
        }
        return {name: delta.double().cpu() for name, delta in deltas.items()}, bases


class PersonalStore:
    """One safetensors file, replaced whole; deltas lie in it in low-rank form.

    Parameters
    ----------
    folder : Path
        Owned by one client; made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def load(self, run_id: str, fingerprint: str, shapes: Shapes) -> PersonalModel:
        """Return the personal model, or the base model's state if there is none.

        Raises
        ------
        ConfigurationError
            If the file belongs to another run or another model.
        """
        if not self.path.exists():
            return PersonalModel.new(shapes)
        with safe_open(self.path, framework="pt") as file:
            head = json.loads((file.metadata() or {})["personal"])
        tensors = load_file(self.path)
        for name, expected in (("run_id", run_id), ("fingerprint", fingerprint)):
            if head[name] != expected:
                raise ConfigurationError(
                    f"Expected the personal model of {name} {expected!r} in "
                    f"{self.path}, found {head[name]!r}. Give each run a folder of its "
                    "own, or go on with the run_id that the folder belongs to."
                )
        bases = {name: tensors[f"{name}/basis"] for name in shapes}
        return PersonalModel(
            slot=head["slot"],
            is_shared_only=head["is_shared_only"],
            deltas={n: bases[n] @ tensors[f"{n}/coefficients"] for n in shapes},
            bases=bases,
            own=MediatorVectors(
                tensors["mkv_z"],
                tensors["mkv_delta"],
                {name: tensors[f"{name}/mkv_key"] for name in shapes},
                tensors["mkv_steps"],
            ),
            slot_size=head["slot_size"],
            received=tuple(head["received"]),
        )

    def save(self, model: PersonalModel, run_id: str, fingerprint: str) -> None:
        """Write the personal model; a reader sees the whole file or the one before."""
        tensors = {
            "mkv_z": model.own.z,
            "mkv_delta": model.own.delta,
            "mkv_steps": model.own.gradient_steps,
        }
        for name, basis in model.bases.items():
            tensors[f"{name}/basis"] = basis
            tensors[f"{name}/coefficients"] = to_low_rank(model.deltas[name], basis)
            tensors[f"{name}/mkv_key"] = model.own.keys[name]
        head = {
            "run_id": run_id,
            "fingerprint": fingerprint,
            "slot": model.slot,
            "is_shared_only": model.is_shared_only,
            "slot_size": model.slot_size,
            "received": model.received,
        }
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        with replacing(self.path) as draft:
            save_file(tensors, draft, metadata={"personal": json.dumps(head)})
