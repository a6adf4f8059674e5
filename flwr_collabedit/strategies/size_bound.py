"""Who sends far larger statistics than the others: a bound from their median."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

Sizes = Mapping[str, float]
"""Of one reply: what was measured (``residual``, ``key <parameter>``), how large."""

MIN_COMPARED = 3


@dataclass(frozen=True)
class SizeBound:
    """The bound on each size, which only grows in the course of a run.

    A reply may be ``factor`` times the median of the clients' sizes. The largest median
    so far counts, because later sweeps and repeated facts leave small residuals: who
    brings a new fact then must not be taken for an attacker. Fewer than three clients
    have no median that one of them does not decide: what was seen before holds then.

    Attributes
    ----------
    medians : mapping of str to float
        The largest median of each size so far.
    """

    medians: Mapping[str, float] = field(default_factory=dict)

    def after(self, replies: Mapping[str, Sizes]) -> Self:
        """Return the bound that these clients' replies, too, have set."""
        medians = dict(self.medians)
        for name in sorted({name for sizes in replies.values() for name in sizes}):
            # Clients without edits, whose sizes are 0, say nothing of the others'.
            found = [s[name] for s in replies.values() if s.get(name, 0.0) > 0]
            if len(found) >= MIN_COMPARED:
                median = statistics.median_low(found)
                medians[name] = max(medians.get(name, 0.0), median)
        return replace(self, medians=medians)

    def reason(self, sizes: Sizes, factor: float) -> str:
        """Return why a reply is too large; empty if it is not."""
        for name, size in sizes.items():
            median = self.medians.get(name, 0.0)
            if median and size > factor * median:
                return (
                    f"size of {name} is {size:.3g} an edit, {size / median:.1f} times "
                    f"the clients' median; at most {factor:g} times it is taken. If "
                    "the client is honest, raise size_factor."
                )
        return ""
