"""Mean and 95 % interval over repeated runs."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Two-sided 95 % quantiles of Student's t for 1 to 10 degrees of freedom.
_T_95 = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706),
    *(2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
)
_Z_95 = 1.959964


@dataclass(frozen=True)
class Estimate:
    """A mean over repeated runs and how sure it is.

    Attributes
    ----------
    mean : float
        Over the values.
    half_width : float or None
        Of the two-sided 95 % t-interval of the mean; ``None`` for a single value.
    count : int
        Number of values.

    Examples
    --------
    >>> str(Estimate.of([70.0, 72.0, 74.0]))
    '72.0 ± 5.0'
    >>> str(Estimate.of([70.0]))
    '70.0'
    """

    mean: float
    half_width: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """Return the estimate from at least one value, as one value a seed."""
        mean, count = statistics.fmean(values), len(values)
        if count == 1:
            return cls(mean, None, count)
        error = statistics.stdev(values) / math.sqrt(count)
        return cls(mean, t_quantile(count - 1) * error, count)

    def __str__(self) -> str:
        if self.half_width is None:
            return f"{self.mean:.1f}"
        return f"{self.mean:.1f} ± {self.half_width:.1f}"


def t_quantile(degrees: int) -> float:
    """Return the two-sided 95 % quantile of Student's t, right to 0.001.

    Tabulated up to 10 degrees of freedom; above by the expansion in ``1 / degrees``
    (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5).

    Examples
    --------
    >>> round(t_quantile(2), 3), round(t_quantile(30), 3)
    (4.303, 2.042)
    """
    if degrees <= len(_T_95):
        return _T_95[degrees - 1]
    z = _Z_95
    first = (z**3 + z) / (4 * degrees)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
    return z + first + second + third
