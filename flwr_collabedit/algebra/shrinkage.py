"""Shrinkage of a second moment that few keys were read for, towards a scaled identity.

Olivier Ledoit, Michael Wolf. A well-conditioned estimator for large-dimensional
    covariance matrices. Journal of Multivariate Analysis 88, 2004, section 3.3.
"""

import torch
from torch import Tensor


def shrunk(moment: Tensor, intensity: float) -> Tensor:
    """Return ``(1 - a) C + a m I`` with ``m = tr C / d_key``.

    The trace stays; eigenvalues move towards their mean. With ``a > 0`` the result is
    positive definite, however few keys ``C`` was read from.

    Parameters
    ----------
    moment : Tensor
        ``C``, shape ``(d_key, d_key)``, symmetric, float64.
    intensity : float
        ``a`` from 0 (``C`` itself) to 1 (the scaled identity).
    """
    result = (1 - intensity) * moment
    result.diagonal().add_(intensity * moment.diagonal().mean())
    return result


def ledoit_wolf_intensity(
    moment: Tensor, fourth_powers: Tensor, num_keys: int
) -> float:
    """Return the intensity at which `shrunk` is nearest the true second moment.

    With ``C = sum k k^T / n`` and the Frobenius norm it is ``min(b2 / d2, 1)``, where
    ``d2 = ||C - m I||^2 = ||C||^2 - d_key m^2`` and
    ``b2 = sum ||k k^T - C||^2 / n^2 = (sum ||k||^4 / n - ||C||^2) / n`` estimates the
    squared error of ``C``. The paper subtracts a mean first, or knows that it is zero;
    neither formula needs that, so here both are of the uncentred moment, whose mean is
    part of what an edit must keep.

    Parameters
    ----------
    moment : Tensor
        ``C``, shape ``(d_key, d_key)``, symmetric, float64.
    fourth_powers : Tensor
        ``sum ||k||^4``, a float64 scalar: the one sum that is needed besides ``C``.
    num_keys : int
        ``n``, at least 1.

    Notes
    -----
    Optimal, as keys and widths grow together, for independent keys. The tokens of a
    document are not quite that: with few long documents it is too small.
    """
    squares = torch.linalg.matrix_norm(moment).square()
    from_identity = squares - len(moment) * moment.diagonal().mean().square()
    error = (fourth_powers / num_keys - squares) / num_keys
    # Rounding may leave either a little below zero.
    if error <= 0 or from_identity <= 0:
        return 0.0
    return min(1.0, float(error / from_identity))
