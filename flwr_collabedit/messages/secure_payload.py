"""Edit statistics as integers that secure aggregation can add without rounding.

``docs/secure_aggregation.md`` has the numbers.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.fixed_point import (
    from_limbs,
    powers_of_two,
    rounding_bound,
    to_limbs,
)
from flwr_collabedit.algebra.matrices import (
    from_triangle,
    is_semidefinite,
    lower_triangle,
)
from flwr_collabedit.algebra.running_sum import RunningSum, StatisticsSum
from flwr_collabedit.errors import MatrixError, PayloadError
from flwr_collabedit.messages.payloads import Arrays

# A sum of integers comes back as a mean of float64: so near is its integer.
_NEAR = 2.0**-10


class SecureTask(BaseModel):
    """How numbers become integers; public, and the same for all clients.

    Attributes
    ----------
    num_limbs, limb_bits : int
        See `flwr_collabedit.algebra.fixed_point`.
    gram_exponent, cross_exponent : int
        An entry of ``K K^T`` is divided by ``2^(e_i + e_j + gram_exponent)``, one of
        ``R K^T`` by ``2^(e_j + cross_exponent)``; what is larger is refused.
    key_exponents : dict of str to tuple of int
        ``e``, ``(d_key,)``, of each measured weight.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_limbs: Annotated[int, Field(ge=1)]
    limb_bits: Annotated[int, Field(ge=2, le=30)]
    gram_exponent: int
    cross_exponent: int
    key_exponents: dict[str, tuple[int, ...]]

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the task that ``model_dump_json`` wrote.

        Raises
        ------
        PayloadError
            If the text is anything else.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            problem = error.errors()[0]
            raise PayloadError(
                f"Secure task, field {problem['loc']}: {problem['msg']}. Install the "
                "same flwr-collabedit on server and clients."
            ) from None

    @property
    def clipping_range(self) -> float:
        """Size of the largest limb; SecAgg+ clips what is larger."""
        return 2.0 ** (self.limb_bits - 1)

    @property
    def quantization_range(self) -> int:
        """Steps that SecAgg+ is to take from one end to the other: one an integer."""
        return int(2 * self.clipping_range)

    def scales(self, name: str) -> dict[str, Tensor]:
        """Return what ``gram`` and ``cross`` of a weight are divided by.

        Of shapes ``(d_key, d_key)`` and ``(d_key,)``, float64.
        """
        keys = powers_of_two(self.key_exponents[name])
        return {
            "gram": 2.0**self.gram_exponent * keys[:, None] * keys,
            "cross": 2.0**self.cross_exponent * keys,
        }


def pack_secure(keys: Tensor, residuals: Tensor, task: SecureTask, name: str) -> Arrays:
    """Return the limbs of one weight's statistics: of the gram's triangle, the cross.

    Parameters
    ----------
    keys, residuals : Tensor
        ``(d_key, n)`` and ``(d_value, n)``, float64.
    task, name
        Which numbers become which integers, and of which weight.

    Raises
    ------
    PayloadError
        If an entry would be clipped.
    """
    statistics = EditStatistics.from_pairs(keys, residuals)
    scales = task.scales(name)
    parts = {
        "gram": lower_triangle(statistics.gram / scales["gram"]),
        "cross": statistics.cross / scales["cross"],
    }
    arrays: Arrays = []
    for part, values in parts.items():
        try:
            limbs = to_limbs(values, task.num_limbs, task.limb_bits)
        except MatrixError as error:
            raise PayloadError(
                f"{name}, {part}: {error}: raise {part}_exponent of SecureAggregation "
                "on the server."
            ) from None
        arrays += [limb.numpy(force=True) for limb in limbs]
    return arrays


def unpack_sum(
    arrays: Sequence[NDArray[np.generic]],
    task: SecureTask,
    shapes: Mapping[str, tuple[int, int]],
    num_clients: int,
    num_edits: int,
) -> dict[str, StatisticsSum]:
    """Return the statistics of all clients' edits by weight.

    Parameters
    ----------
    arrays : sequence of ndarray
        The *mean* over clients of what `pack_secure` returns, weight after weight.
    task : SecureTask
        What the clients were told.
    shapes : mapping of str to (int, int)
        ``(d_value, d_key)`` of the measured weights, in their order.
    num_clients, num_edits : int
        Whose arrays are in the mean, and how many edits they say they have.

    Raises
    ------
    PayloadError
        If the arrays are not a mean of integers or a gram is not positive semidefinite.
    """
    expected = 2 * task.num_limbs * len(shapes)
    if len(arrays) != expected:
        raise PayloadError(f"Expected {expected} arrays, found {len(arrays)}.")
    sums = iter([_sum_of(array, num_clients) for array in arrays])
    found = {}
    for name, (d_value, d_key) in shapes.items():
        gram = _joined(sums, task, (d_key * (d_key + 1) // 2,))
        cross = _joined(sums, task, (d_value, d_key))
        full = RunningSum(
            from_triangle(gram.total, d_key), from_triangle(gram.low, d_key)
        )
        bound = rounding_bound(num_clients, task.num_limbs, task.limb_bits)
        largest = max(float(full.total.diagonal().max()), bound)
        eps = torch.finfo(torch.float64).eps + bound / largest
        if not is_semidefinite(full.total, eps):
            raise PayloadError(f"{name}: the sum's gram is not positive semidefinite.")
        scales = task.scales(name)
        found[name] = StatisticsSum(
            _scaled(full, scales["gram"]), _scaled(cross, scales["cross"]), num_edits
        )
    return found


def _sum_of(mean: NDArray[np.generic], num_clients: int) -> Tensor:
    rough = torch.tensor(mean, dtype=torch.float64) * num_clients
    total = rough.round()
    if not bool(((rough - total).abs() <= _NEAR).all()):
        raise PayloadError(
            "Expected a sum of integers, found fractions: a client sent other numbers "
            "or weights than it was told to."
        )
    return total


def _joined(
    sums: Iterator[Tensor], task: SecureTask, shape: tuple[int, ...]
) -> RunningSum:
    limbs = [next(sums) for _ in range(task.num_limbs)]
    for limb in limbs:
        if tuple(limb.shape) != shape:
            raise PayloadError(f"Expected shape {shape}, found {tuple(limb.shape)}.")
    return from_limbs(limbs, task.limb_bits)


def _scaled(found: RunningSum, scale: Tensor) -> RunningSum:
    # By powers of two: nothing is rounded.
    return RunningSum(found.total * scale, found.low * scale)
