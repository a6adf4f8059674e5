"""What a hypernetwork is made for and how large it is."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from flwr_collabedit.editors.editor_config import Count, NonNegative, Positive
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
    tokens : {"answer", "subject", "all"}
        Which tokens it reads. Published: those that predict the ``answer`` (MALMEN), or
        all (MEND). The ``subject``'s last token, where MEMIT writes, is ours: what is
        read there is the subject's own, so that many edits get in each other's way
        less.
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


class TrainingConfig(BaseModel):
    """How a hypernetwork is trained. Defaults are for the embedded model.

    Attributes
    ----------
    num_steps : int
        Of Adam; in the second half its step sizes fall linearly to 0.
    edits_per_step : int
        Facts that are edited together, at most. Published: 512 and more, one epoch.
    asked_per_step : int
        Of these, how many are asked about afterwards; published: all. The number of
        edits is drawn between the two, evenly by its logarithm, so that the network
        learns to edit few facts and many.
    kept_per_edit : int
        Questions for every edit asked about, whose answers are to stay.
    learning_rate : float
        Of the blocks, > 0. Published: 1e-5.
    scalar_learning_rate : float
        Of the logarithms of learning rates and ``lambda``, > 0.
    locality_weight : float
        Of the divergence on what is to stay. Published: 1.
    max_gradient_norm : float
        Gradients are scaled down to it, > 0. Published: 1.
    seed : int
        Of the network's first weights and of the batches.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_steps: Count = 600
    edits_per_step: Count = 1024
    asked_per_step: Count = 32
    kept_per_edit: Count = 2
    learning_rate: Positive = 1e-3
    scalar_learning_rate: Positive = 1e-2
    locality_weight: NonNegative = 1.0
    max_gradient_norm: Positive = 1.0
    seed: int = 0
