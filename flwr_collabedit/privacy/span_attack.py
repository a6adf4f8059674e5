"""An attack without training: which candidates' keys lie in the span of the upload.

``K K^T`` shows the span of the keys. An edited subject's key lies in it and, as long as
there are fewer edits than dimensions, nobody else's does.
"""

import torch
from torch import Tensor

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.pivoted_cholesky import pivoted_cholesky

# Eigenvalues of the gram matrix below this share of the largest are noise: float32 on
# the wire rounds at 6e-8.
TOLERANCE = 1e-6


def gram_factor(gram: Tensor, *, tolerance: float = TOLERANCE) -> Tensor:
    """Return ``F``, ``(d_key, r)``, with ``F F^T`` the semidefinite ``gram``, float64.

    It is a function of the gram matrix alone, as a sealed factor is.
    """
    return pivoted_cholesky(gram.double(), tolerance)[1].T


def span_scores(
    factor: Tensor, candidates: Tensor, *, tolerance: float = TOLERANCE
) -> Tensor:
    """Return how well each candidate fits the upload; the greatest fits best.

    ``-k^T (F F^T + e P)^-1 k`` with ``P`` the projector beside the span of
    ``F`` and ``e`` small. Below full rank it ranks by what of ``k`` is beside the span;
    at full rank by the leverage ``k^T (F F^T)^-1 k``, at most 1 for an edited key.

    Parameters
    ----------
    factor : Tensor
        ``F``, ``(d_key, n)``, with ``F F^T`` the gram matrix or a sum of them.
    candidates : Tensor
        Keys ``(d_key, subject, wording)``; a subject counts by its best wording.
    tolerance : float
        ``e`` as a share of the largest eigenvalue of ``F F^T``; smaller ones count as
        ``e``.

    Returns
    -------
    Tensor
        ``(subject,)``, float64.
    """
    keys = candidates.flatten(1).double()
    directions, roots, _ = torch.linalg.svd(factor.double(), full_matrices=False)
    smallest = tolerance * roots[0].square()
    inside = (directions.T @ keys).square()
    total = torch.einsum("dk,dk->k", keys, keys)
    beside = (total - inside.sum(dim=0)).clamp_min(0.0)
    fit = (inside / roots.square().clamp_min(smallest)[:, None]).sum(dim=0)
    misfit: Tensor = fit + beside / smallest
    return -misfit.reshape(candidates.shape[1:]).amin(dim=1)


def residuals_of(statistics: EditStatistics, keys: Tensor) -> Tensor:
    """Return the residuals of edits whose keys are known: ``R K^T (K K^T)^+ k``.

    Exact where the keys of the upload are linearly independent: who finds a subject
    has its new target's vector too.

    Parameters
    ----------
    statistics : EditStatistics
        As uploaded.
    keys : Tensor
        ``(d_key, m)``, found by `span_scores`, for example.

    Returns
    -------
    Tensor
        ``(d_value, m)``, float64.
    """
    factor = gram_factor(statistics.gram)
    # F^+ from a factor of full column rank: better conditioned than that of F F^T.
    weights: Tensor = torch.linalg.lstsq(factor, keys.double()).solution  # F^+ k
    back: Tensor = torch.linalg.lstsq(factor, statistics.cross.T).solution  # F^+ K R^T
    return back.T @ weights
