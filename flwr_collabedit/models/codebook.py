"""A codebook: what a layer is to put out for some of its inputs, in place of a weight.

Hartvigsen et al. "Aging with GRACE: Lifelong Model Editing with Discrete Key-Value
Adaptors", NeurIPS 2023.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Codebook:
    """Keys with their values and radii, at one module's output."""

    module: str
    keys: Tensor
    values: Tensor
    radii: Tensor
