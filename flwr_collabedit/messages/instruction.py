"""What the server asks of a client, as scalars that a Flower ``ConfigRecord`` carries.

``docs/payload_format.md`` lists the keys.
"""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from flwr_collabedit.algebra.schedule import LayerSchedule, ResidualSplit
from flwr_collabedit.errors import PayloadError

SCHEMA_VERSION = 1
Form = Literal["factors", "dense", "delta", "mkv"]
WireDtype = Literal["float32", "float64"]
Phase = Literal["edit", "declare", "withdraw"]
MeasuredOn = Literal["current", "base"]
Presence = Literal["", "answer", "residual"]
_SEPARATOR = "\n"
_REPLY_FIELDS = (
    "schema-version",
    "fingerprint",
    "server-round",
    "round-id",
    "phase",
    "form",
    "layer-schedule",
)


def _kebab(name: str) -> str:
    return name.replace("_", "-")


class Instruction(BaseModel):
    """What the server asks of a client in one exchange.

    Attributes
    ----------
    server_round : int
        Counts from 1; 0 asks for an evaluation before the first round.
    round_id : str
        Identifies the model that the round starts from; targets are kept under it.
    measured : tuple of str
        The parameters whose statistics or deltas are asked for; empty for an
        evaluation.
    layer_schedule, residual_split
        See `flwr_collabedit.algebra.schedule`. Clients read the split only where they
        solve, which is where they send deltas.
    form : {"factors", "dense", "delta", "mkv"}
        Statistics in one of two forms, the delta that the client solved itself, or the
        mediator knowledge vectors of its edits.
    hyperparameters, contexts : str
        JSON of the editor's configuration and of the shared context templates.
    phase : {"edit", "declare", "withdraw"}
        What a training message asks for: the round's edits; what the client is about
        to edit and to take back, see `flwr_collabedit.messages.declaration`; or the
        statistics of earlier edits, which the server is to subtract.
    measured_on : {"current", "base"}
        Whether targets, keys and residuals are taken on the model that the message
        describes or on the unedited one.
    inactive : str
        JSON of a `flwr_collabedit.messages.edit_set.EditSet`: the client's edits that
        were left out or withdrawn.
    augmented : str
        The same, of edits that are to be written with their paraphrases and related
        facts, because they have won a conflict.
    withdrawn : str
        The same, of the edits whose statistics a ``withdraw`` message asks for.
    presence : {"", "answer", "residual"}
        How a declaration is to tell what the model knows already; empty: not at all.
    tagged : bool
        Whether a declaration is to carry keyed tags of the facts.
    personal : str
        JSON of a `flwr_collabedit.messages.personal_task.PersonalTask` where each
        client has a model of its own; empty where all share the server's.
    secure : str
        JSON of a `flwr_collabedit.messages.secure_payload.SecureTask` where the dense
        statistics are to be summed by secure aggregation; empty where they are not.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=_kebab, populate_by_name=True
    )

    schema_version: int = SCHEMA_VERSION
    server_round: int
    round_id: str
    fingerprint: str
    parameters: tuple[str, ...]
    measured: tuple[str, ...] = ()
    layer_schedule: LayerSchedule = "synchronous"
    residual_split: ResidualSplit = "remaining"
    form: Form = "factors"
    wire_dtype: WireDtype = "float32"
    hyperparameters: str
    contexts: str
    phase: Phase = "edit"
    measured_on: MeasuredOn = "current"
    inactive: str = ""
    augmented: str = ""
    withdrawn: str = ""
    presence: Presence = ""
    tagged: bool = False
    personal: str = ""
    secure: str = ""

    def to_config(self) -> dict[str, str | int | bool]:
        """Return the instruction as scalars, as a ``ConfigRecord`` carries them."""
        fields = self.model_dump(by_alias=True)
        return {
            key: _SEPARATOR.join(value) if isinstance(value, tuple) else value
            for key, value in fields.items()
        }

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Self:
        """Read an instruction; keys that are not ours (a user's own) are ignored."""
        names = {_kebab(name) for name in cls.model_fields}
        fields = {key: value for key, value in config.items() if key in names}
        version = fields.get("schema-version")
        if version != SCHEMA_VERSION:
            raise PayloadError(
                f"Expected an instruction of schema version {SCHEMA_VERSION}, found "
                f"{version!r}. Install the same flwr-collabedit on server and clients."
            )
        for key in ("parameters", "measured"):
            text = fields.get(key, "")
            fields[key] = tuple(str(text).split(_SEPARATOR)) if text else ()
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            problem = error.errors()[0]
            raise PayloadError(
                f"Instruction field {problem['loc']}: {problem['msg']}, found "
                f"{problem['input']!r}. Use a strategy of flwr_collabedit."
            ) from None

    def reply_config(self) -> dict[str, str]:
        """Return what a reply repeats, so that the server sees what it answers."""
        fields = self.to_config()
        return {key: str(fields[key]) for key in _REPLY_FIELDS}
