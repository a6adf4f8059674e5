"""Mediator knowledge vectors: what one edit leaves behind for others to reuse.

Zhao et al. "FedLEKE: Federated Locate-then-Edit Knowledge Editing for Multi-Client
Collaboration", 2025. ``docs/fededit.md`` says what paper and code leave open.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import normalize

from flwr_collabedit.algebra.edit_statistics import EditStatistics

NEAR_EQUAL = 0.99
_CALIBRATION_VECTORS = 2_000
_KEYS = "keys/"


@dataclass(frozen=True)
class MediatorVectors:
    """The mediator knowledge vectors (MKVs) of ``n`` edits.

    Attributes
    ----------
    z : Tensor
        Targets, shape ``(n, d_value)``, float64.
    delta : Tensor
        ``z - h0``, the targets' distance from the values that they were optimised
        from, shape ``(n, d_value)``, float64.
    keys : Mapping of str to Tensor
        Keys of each edited weight on the base model, ``(d_key, n)``, float64.
    gradient_steps : Tensor
        Gradient steps that each target cost, shape ``(n,)``, int64.
    """

    z: Tensor
    delta: Tensor
    keys: Mapping[str, Tensor]
    gradient_steps: Tensor

    def __len__(self) -> int:
        """Return the number of edits."""
        return len(self.z)

    def take(self, index: Tensor) -> "MediatorVectors":
        """Return the vectors at a boolean mask or at indices, shape ``(n,)``."""
        keys = {name: keys[:, index] for name, keys in self.keys.items()}
        return MediatorVectors(
            self.z[index], self.delta[index], keys, self.gradient_steps[index]
        )

    def sizes(self) -> dict[str, float]:
        """Return the norm of the largest target, residual and key of each weight."""
        rows = {"targets": self.z, "residuals": self.delta}
        rows |= {f"keys of {name}": keys.T for name, keys in self.keys.items()}
        return {
            name: float(vector_norm(one, dim=1).max()) if len(self) else 0.0
            for name, one in rows.items()
        }

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the vectors by name, as a file holds them."""
        keys = {f"{_KEYS}{name}": keys for name, keys in self.keys.items()}
        steps = self.gradient_steps
        return {"z": self.z, "delta": self.delta, "steps": steps, **keys}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], parameters: Sequence[str]
    ) -> "MediatorVectors":
        """Return what :meth:`to_tensors` gave, of these weights in this order."""
        keys = {name: tensors[f"{_KEYS}{name}"] for name in parameters}
        return cls(tensors["z"], tensors["delta"], keys, tensors["steps"])

    @classmethod
    def join(cls, parts: "Sequence[MediatorVectors]") -> "MediatorVectors":
        """Return all vectors of ``parts``, at least one, in their order."""
        return cls(
            torch.cat([part.z for part in parts]),
            torch.cat([part.delta for part in parts]),
            {
                name: torch.cat([part.keys[name] for part in parts], dim=1)
                for name in parts[0].keys
            },
            torch.cat([part.gradient_steps for part in parts]),
        )


def select_relevant(candidates: Tensor, own: Tensor, alpha: float) -> Tensor:
    """Return which candidates meet the re-edit condition (FedLEKE, eq. 8).

    A candidate ``q`` is relevant where ``cos(q, c) > alpha`` holds for at least half
    of the client's own vectors ``c`` of the slot.

    Parameters
    ----------
    candidates, own : Tensor
        Others' vectors ``(m, d)`` and the client's ``(n, d)``. Without own ones
        nothing is relevant.
    alpha : float
        In [-1, 1]. -1 is no condition: everything is relevant.

    Returns
    -------
    Tensor
        Boolean, shape ``(m,)``.
    """
    if len(own) == 0:
        return torch.zeros(len(candidates), dtype=torch.bool)
    if alpha <= -1:
        return torch.ones(len(candidates), dtype=torch.bool)
    above = (_cosines(candidates, own) > alpha).sum(dim=1)
    return 2 * above >= len(own)


def calibrated_alpha(groups: Sequence[Tensor], percentile: float) -> float:
    """Return the percentile of the cosines between vectors of different clients.

    What counts as a high cosine depends on the model, since targets share a large
    common component; a percentile does not.

    Parameters
    ----------
    groups : sequence of Tensor
        Each client's vectors, ``(n, d)``. At most 2,000 vectors in all are compared,
        evenly spaced.
    percentile : float
        In (0, 100].

    Returns
    -------
    float
        In [-1, 1]; 1 where there are no two clients with vectors.
    """
    total = sum(len(group) for group in groups)
    stride = max(1, -(-total // _CALIBRATION_VECTORS))
    vectors = torch.cat([group[::stride] for group in groups])
    owner = torch.cat(
        [torch.full((len(g[::stride]),), i) for i, g in enumerate(groups)]
    )
    found = _cosines(vectors, vectors)[owner[:, None] != owner[None, :]]
    if len(found) == 0:
        return 1.0
    rank = math.ceil(percentile / 100 * len(found))  # nearest rank, from 1
    return float(found.sort().values[rank - 1])


def contradicts(one: MediatorVectors, other: MediatorVectors, name: str) -> Tensor:
    """Return which pairs edit nearly the same key towards different targets.

    Keys of the weight ``name`` whose cosine exceeds 0.99 are the same key; targets are
    different where the cosine of their deltas does not.

    Returns
    -------
    Tensor
        Boolean, shape ``(len(one), len(other))``.
    """
    same_key = _cosines(one.keys[name].T, other.keys[name].T) > NEAR_EQUAL
    return same_key & (_cosines(one.delta, other.delta) <= NEAR_EQUAL)


def re_edit_statistics(
    vectors: MediatorVectors, name: str, share: float, delta: Tensor
) -> EditStatistics:
    """Return the statistics that write others' vectors into a weight.

    The wanted value of a key is what the sender's base model gave plus the layer's
    share of the residual, ``v = W_base k + share * (z - h0)``. The receiver's weight is
    ``W_base + Delta``, so what is left to write is ``share * (z - h0) - Delta k``:
    a fact that it already has is not written twice.

    Parameters
    ----------
    vectors : MediatorVectors
        ``m`` of them.
    name : str
        The weight.
    share : float
        The layer's share of the residual. Keys are not measured again from layer to
        layer, so the shares must sum to one.
    delta : Tensor
        ``Delta``, what the receiver has added to the weight, ``(d_value, d_key)``.
    """
    keys = vectors.keys[name]
    return EditStatistics.from_pairs(keys, share * vectors.delta.T - delta @ keys)


def _cosines(one: Tensor, other: Tensor) -> Tensor:
    """Return ``(len(one), len(other))``, within [-1, 1]; 0 with a vector of zeros.

    The last bits of a matrix product depend on its shape, so that server and client
    would disagree on a cosine that equals alpha, as one does where alpha is calibrated.
    Multiples of 2^-30 are the same for both.
    """
    product: Tensor = normalize(one.double()) @ normalize(other.double()).T
    return product.mul_(2**30).round_().div_(2**30).clamp_(-1, 1)
