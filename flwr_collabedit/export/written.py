"""What an export wrote of each edited layer, in figures."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

Progress = Callable[[int, int], None]
"""Told how many of how many layers are done."""


class Form(StrEnum):
    """What an edit is exported as."""

    MODEL = "model"
    DELTA = "delta"
    LORA = "lora"


@dataclass(frozen=True)
class WrittenLayer:
    """One edited weight as it was exported.

    Attributes
    ----------
    name : str
        The parameter.
    relative_norm : float
        ``||delta|| / ||weight||``, Frobenius norms; the weight is the base model's.
    rank : int or None
        Of the LoRA factors, 0 for a layer that has none; ``None`` for other forms.
    relative_error : float
        ``||written change - delta|| / ||delta||``: what rounding to the exported dtype
        and leaving out singular values cost. 0 for a delta of zero.
    """

    name: str
    relative_norm: float
    rank: int | None
    relative_error: float
