"""Real numbers as a few small integers each, which add up without rounding.

Secure aggregation adds integers modulo ``2^32``. A number in [-1, 1] becomes ``L``
limbs of ``b`` bits, ``x = sum_l d_l 2^(1 - b l) + e`` for ``l = 1..L``, with integers
``|d_l| <= 2^(b - 1)`` (balanced digits: Knuth, "The Art of Computer Programming", vol.
2, section 4.1) and ``|e| <= 2^(-L b)``. The limbs of ``n`` parties' numbers are added
limb by limb; only the ``e`` are lost, ``n 2^(-L b)`` at most. Scales are powers of two,
so that scaling rounds nothing.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from flwr_collabedit.algebra.running_sum import RunningSum
from flwr_collabedit.errors import MatrixError

# Keys of a coordinate that C says is never active are scaled as if its standard
# deviation were this share (2^-20) of the largest.
_SMALLEST_VARIANCE = 2.0**-40


def to_limbs(values: Tensor, num_limbs: int, limb_bits: int) -> list[Tensor]:
    """Return the limbs of numbers in [-1, 1], the highest first.

    Parameters
    ----------
    values : Tensor
        Any shape, float64.
    num_limbs, limb_bits : int
        ``L`` and ``b``; ``b`` at most 31.

    Returns
    -------
    list of Tensor
        ``L`` tensors of the shape of ``values``, integers in float64, each at most
        ``2^(b - 1)`` in size.

    Raises
    ------
    MatrixError
        If a number is outside [-1, 1] or not finite: it would be clipped.

    Examples
    --------
    >>> to_limbs(torch.tensor([0.3], dtype=torch.float64), 2, 4)
    [tensor([2.], dtype=torch.float64), tensor([6.], dtype=torch.float64)]
    """
    largest = float(values.abs().max()) if values.numel() else 0.0
    if not largest <= 1:
        raise MatrixError(
            f"expected numbers in [-1, 1], found one of size {largest:.3g}; it would "
            "be clipped: use a larger scale"
        )
    rest, limbs = values * 2.0 ** (limb_bits - 1), []
    for _ in range(num_limbs):
        limb = rest.round()
        limbs.append(limb)
        # Exact: limb and rest agree in all bits above the point.
        rest = (rest - limb) * 2.0**limb_bits
    return limbs


def from_limbs(sums: Sequence[Tensor], limb_bits: int) -> RunningSum:
    """Return the number that sums of limbs stand for.

    Parameters
    ----------
    sums : sequence of Tensor
        Of `to_limbs`, each added over parties; float64.
    """
    total = RunningSum.of(torch.zeros_like(sums[0]))
    for index, limb in enumerate(sums):
        total = total.plus(limb * 2.0 ** (1 - limb_bits * (index + 1)))
    return total


def rounding_bound(num_parties: int, num_limbs: int, limb_bits: int) -> float:
    """Return ``n 2^(-L b)``: what the sum of so many numbers may be off by."""
    return num_parties * 2.0 ** (-num_limbs * limb_bits)


def largest_limb_bits(num_parties: int) -> int:
    """Return ``b`` for which so many limbs stay below ``2^32`` in all, with a margin.

    SecAgg+ adds ``n`` numbers of up to ``2^b``, and a weight of ``2^b`` each: ``n 2^b``
    is at most ``2^31``. Its rounding to 32-bit integers holds ``b`` at 30 or less.
    """
    return min(31 - (num_parties - 1).bit_length(), 30)


def key_exponents(squares: Tensor) -> list[int]:
    """Return ``e`` with ``2^(e - 1) <= sqrt(c_i) < 2^e`` for each coordinate of a key.

    Parameters
    ----------
    squares : Tensor
        ``c``, ``(d_key,)``, the diagonal of ``lambda C0``: so little is public of what
        each coordinate of a key usually is.
    """
    diagonal = squares.double()
    floor = float(diagonal.max()) * _SMALLEST_VARIANCE
    return [math.frexp(math.sqrt(max(c, floor)))[1] for c in diagonal.tolist()]


def powers_of_two(exponents: Sequence[int]) -> Tensor:
    """Return ``2^e`` for each exponent, float64, exact."""
    return torch.tensor([math.ldexp(1.0, e) for e in exponents], dtype=torch.float64)
