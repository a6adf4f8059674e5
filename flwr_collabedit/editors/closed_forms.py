"""From mapped gradients to a weight's update: MALMEN's least squares and others."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from flwr_collabedit.editors.hypernetwork import Hypernetwork
from flwr_collabedit.editors.hypernetwork_config import FormName

ClosedForm = Callable[[Hypernetwork, str, Tensor, Tensor], Tensor]
"""Gives a weight's update ``(d_value, d_key)``, float64, from the hypernetwork, the
weight's name, keys ``(d_key, token)`` and gradients ``(d_value, token)``; autograd sees
through it to the hypernetwork."""


def least_squares(
    hypernetwork: Hypernetwork, name: str, keys: Tensor, gradients: Tensor
) -> Tensor:
    """Return ``D K^T (K K^T + lambda I)^-1``, Tan et al., 2024.

    The same as `flwr_collabedit.algebra.priors.RidgePrior.update` gives, which no
    gradient passes through.
    """
    differences = hypernetwork.value_differences(name, keys, gradients).double()
    keys = keys.double()
    eye = torch.eye(len(keys), dtype=keys.dtype, device=keys.device)
    ridge = hypernetwork.ridge(name).double() * eye
    factor = torch.linalg.cholesky(keys @ keys.T + ridge)
    return torch.cholesky_solve(keys @ differences.T, factor).T


def outer_product(
    hypernetwork: Hypernetwork, name: str, keys: Tensor, gradients: Tensor
) -> Tensor:
    """Return ``-rate sum_j g~_j k~_j^T``, Mitchell et al., 2022, section 3.1."""
    mapped_keys, mapped_gradients = hypernetwork(name, keys, gradients)
    rate = hypernetwork.rate(name).double()
    update: Tensor = -rate * mapped_gradients.double() @ mapped_keys.double().T
    return update


FORMS: Mapping[FormName, ClosedForm] = {
    "least-squares": least_squares,
    "outer-product": outer_product,
}
FORM_OF: Mapping[str, FormName] = {"malmen": "least-squares", "mend": "outer-product"}
"""By the name of the editor."""
