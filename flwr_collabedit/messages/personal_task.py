"""What a server asks of a client that has a model of its own: FedEdit, local-only."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from flwr_collabedit.errors import PayloadError
from flwr_collabedit.messages.instruction import Instruction

Phase = Literal["share", "re-edit", "evaluate", "alone"]
TargetsOn = Literal["base", "edited"]
Similarity = Literal["z", "delta"]
Selection = Literal["server", "client"]

RE_EDIT_SQUARES = ("re-edit-square-before", "re-edit-square-after")
"""Numbers in the reply to a re-edit: ``||V - W K||_F^2`` over the edited weights."""


class PersonalTask(BaseModel):
    """The part of an instruction that only clients with personal models read.

    Attributes
    ----------
    run_id : str
        A client's personal model belongs to one run; another's is refused.
    phase : {"share", "re-edit", "evaluate", "alone"}
        Edit the slot's own facts and send their mediator vectors; write others'
        vectors, which came with the message; score. ``alone``: edit the round's own
        facts and send nothing of them, or score, as the message's type says; no other
        field but ``run_id`` is read then.
    targets_on : {"base", "edited"}
        The model on which targets are optimised: the base model, so that they compare
        across clients and slots, or the client's own.
    similarity : {"z", "delta"}
        What the cosine compares: targets (paper and code), or their distance from the
        value before, which has no large common part.
    alpha : float
        The re-edit condition's threshold.
    selection : {"server", "client"}
        Who applies the condition. With ``client`` the message brings all vectors.
    provenance : tuple of str
        For each vector that came with the message ``<sender>/<slot>/<index>``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    phase: Phase
    targets_on: TargetsOn = "base"
    similarity: Similarity = "z"
    alpha: float = 0.4
    selection: Selection = "server"
    provenance: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the task that ``model_dump_json`` wrote."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            problem = error.errors()[0]
            raise PayloadError(
                f"Personal task, field {problem['loc']}: {problem['msg']}. Install the "
                "same flwr-collabedit on server and clients."
            ) from None


def is_alone(instruction: Instruction) -> bool:
    """Return whether a client is to work on a model that it shares nothing of."""
    if not instruction.personal:
        return False
    return PersonalTask.from_json(instruction.personal).phase == "alone"
