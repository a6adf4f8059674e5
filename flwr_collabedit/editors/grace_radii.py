"""Where a codebook's entries answer: balls that never meet where their answers differ.

Hartvigsen et al. "Aging with GRACE", NeurIPS 2023, Algorithm 1. Its code looks at the
nearest key only, so that a new ball may meet one further away, and sets that one's
radius to half of the distance even where it was smaller. Here every ball with another
answer is looked at, and none of them grows.
"""

from dataclasses import replace

import torch
from torch import Tensor

from flwr_collabedit.models.codebook import Codebook, distances

# A ball that is to hold a key holds a little more: other batches round otherwise.
_SLACK = 1.01


def covering(
    codebook: Codebook, key: Tensor, label: int, radius: float
) -> Codebook | None:
    """Return the codebook with the nearest ball grown to hold the key, if it may.

    Parameters
    ----------
    codebook : Codebook
        What there is.
    key : Tensor
        What is to be answered, ``(d_key,)``.
    label : int
        The answer's.
    radius : float
        How far from a ball a key may lie to be taken in.

    Returns
    -------
    Codebook or None
        The codebook itself if the nearest entry holds the key already; ``None`` if that
        entry's answer is another, its ball is further off than ``radius``, or it would
        meet a ball with another answer.
    """
    if not len(codebook):
        return None
    distance, nearest = distances(key, codebook.keys).min(dim=0)
    own = codebook.radii[nearest]
    if codebook.labels[nearest] != label or distance > own + radius:
        return None
    grown = _SLACK * distance
    if grown <= own:
        return codebook
    if grown > _room(codebook, codebook.keys[nearest], label):
        return None
    is_nearest = torch.arange(len(codebook), device=own.device) == nearest
    return replace(codebook, radii=torch.where(is_nearest, grown, codebook.radii))


def with_entry(
    codebook: Codebook,
    key: Tensor,
    value: Tensor,
    label: int,
    radius: float,
    resolution: float,
) -> Codebook:
    """Return the codebook with one more entry, the last.

    Balls with another answer that the new ball would meet shrink to half of the
    distance; the new one takes what is left, at most ``radius``.

    Parameters
    ----------
    codebook, key, label
        As in `covering`.
    value : Tensor
        What the module is to put out, ``(d_value,)``.
    radius : float
        Of the new entry where nothing is in its way, > 0.
    resolution : float
        Distance up to which keys cannot be told from each other, >= 0: entries so near
        are replaced by the new one.
    """
    is_apart = distances(key, codebook.keys) > resolution
    keys, values, radii, labels = (
        one[is_apart]
        for one in (codebook.keys, codebook.values, codebook.radii, codebook.labels)
    )
    distance = distances(key, keys)
    is_in_the_way = (labels != label) & (distance < radii + radius)
    radii = torch.where(is_in_the_way, torch.minimum(radii, distance / 2), radii)
    kept = Codebook(codebook.module, keys, values, radii, labels)
    own = _room(kept, key, label).clamp(max=radius)
    return replace(
        kept,
        keys=torch.cat([keys, key[None].to(keys)]),
        values=torch.cat([values, value[None].to(values)]),
        radii=torch.cat([radii, own[None]]),
        labels=torch.cat([labels, labels.new_tensor([label])]),
    )


def _room(codebook: Codebook, key: Tensor, label: int) -> Tensor:
    """Return the distance from a key to the next ball with another answer."""
    is_other = codebook.labels != label
    gaps = distances(key, codebook.keys[is_other]) - codebook.radii[is_other]
    return torch.cat([gaps, gaps.new_tensor([torch.inf])]).min()
