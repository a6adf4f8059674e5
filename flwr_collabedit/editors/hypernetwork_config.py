"""What a hypernetwork is made for and how large it is."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from flwr_collabedit.editors.editor_config import Count, Positive
from flwr_collabedit.editors.label_gradients import Reduction, Tokens

FormName = Literal["least-squares", "outer-product"]


class HypernetworkConfig(BaseModel):
    """Sizes of a hypernetwork, and what it reads.

    Attributes
    ----------
    form : {"least-squares", "outer-product"}
        What is made of its output: MALMEN's solve over all tokens, or MEND's sum of
        rank-one updates.
    weights : dict of str to (int, int)
        ``(d_value, d_key)`` of the edited weights by name, lowest layer first.
    rank : int
        Of each block. Published: 1,920, for widths of 8,000 to 20,000.
    num_blocks : int
        Published: 2 (MALMEN).
    initial_rate : float
        Of every weight, > 0. Published: 1e-6 (MALMEN), 1e-4 (MEND); both are for
        models whose keys are some hundred times as wide as the embedded one's.
    tokens : {"answer", "all"}
        Which tokens it reads.
    reduction : {"sum", "mean"}
        Of the loss; see `flwr_collabedit.editors.label_gradients.label_gradients`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: FormName = "least-squares"
    weights: dict[str, tuple[int, int]] = Field(min_length=1)
    rank: Count = 64
    num_blocks: Annotated[int, Field(ge=0)] = 2
    initial_rate: Positive = 1e-3
    tokens: Tokens = "answer"
    reduction: Reduction = "sum"
