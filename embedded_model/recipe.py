"""Every number of the embedded model's training."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Sizes, rates and schedule of one training.

    Attributes
    ----------
    edited_layers : tuple of int
        Layers to be edited; attention to subjects is closed up to the last of them.
    num_warm_steps : int
        Steps that see only every ``warm_stride``-th subject (curriculum).
    matrix_rate, other_rate : float
        Peak learning rates: Muon on the blocks' matrices, AdamW on everything else.
    other_weight : float
        Loss weight of the tokens that are not an answer.
    open_every : int
        Every so many batches attend freely, in the others subjects are closed. Odd,
        so that batches of several sentences (every fourth) are open too.
    """

    num_layers: int = 5
    hidden_size: int = 160
    num_heads: int = 4
    num_positions: int = 64
    edited_layers: tuple[int, ...] = (0, 1, 2)
    num_steps: int = 1200
    num_warm_steps: int = 150
    warm_stride: int = 8
    num_tokens: int = 2048
    matrix_rate: float = 0.02
    other_rate: float = 4e-3
    weight_decay: float = 0.01
    other_weight: float = 0.1
    open_every: int = 7
    seed: int = 0
