"""What a client says of a round's edits before it edits them, without showing them."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flwr_collabedit.errors import PayloadError
from flwr_collabedit.messages.edit_set import EditSet

DECLARATION = "declaration"
"""Key of the declaration's JSON in a reply's config record."""


class Declaration(BaseModel):
    """One client's edits of one round, as the server may see them.

    Attributes
    ----------
    num_edits : int
        How many; the lists below have one entry an edit, or none where the server did
        not ask.
    fact_tags, target_tags : tuple of str
        Keyed tags of the facts and of their targets, see
        `flwr_collabedit.fact_tags`.
    key_check : str
        Equal for all clients that hold the same key.
    presence : tuple of float
        How much of the edit the model has already, from 0 (nothing) to 1 (all).
    take_back : str
        JSON of an `EditSet`: edits of earlier rounds to withdraw.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_edits: Annotated[int, Field(ge=0)]
    fact_tags: tuple[str, ...] = ()
    target_tags: tuple[str, ...] = ()
    key_check: str = ""
    presence: tuple[float, ...] = ()
    take_back: str = ""

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        for name in ("fact_tags", "target_tags", "presence"):
            found = len(getattr(self, name))
            if found not in (0, self.num_edits):
                raise ValueError(f"{name} has {found} entries")
        if len(self.fact_tags) != len(self.target_tags):
            raise ValueError("fact_tags and target_tags differ in length")
        return self

    @property
    def withdrawals(self) -> EditSet:
        """Edits of earlier rounds that the client takes back."""
        return EditSet.from_json(self.take_back)

    @classmethod
    def from_json(cls, text: object) -> Self:
        """Read a declaration.

        Raises
        ------
        PayloadError
            If it is not one.
        """
        try:
            found = cls.model_validate_json(str(text))
        except ValidationError as error:
            problem = error.errors()[0]
            raise PayloadError(
                f"Declaration, field {problem['loc']}: {problem['msg']}. Use the "
                "ClientApp of flwr_collabedit."
            ) from None
        EditSet.from_json(found.take_back)
        return found
