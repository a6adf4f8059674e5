"""What a solve is to leave alone, and the closed form that follows from it.

Every editor that federates by sums solves for the same statistics; they differ in
their prior only: ``lambda C0`` (MEMIT, PMET), ``kappa I`` (MALMEN), or the null space
of what the model knew (AlphaEdit, `flwr_collabedit.algebra.projection`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from torch import Tensor

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.least_squares import solve_update
from flwr_collabedit.errors import ConfigurationError


class Prior(Protocol):
    """The part of a layer's solve that does not come from the edits."""

    @property
    def d_key(self) -> int:
        """Width of the layer's keys."""

    @property
    def key_squares(self) -> Tensor:
        """How large squared keys are to be expected, ``(d_key,)``, up to a factor."""

    def update(
        self, statistics: EditStatistics, *, delta: Tensor | None = None
    ) -> Tensor:
        """Return the weight update, ``(d_value, d_key)``, float64.

        Parameters
        ----------
        statistics : EditStatistics
            Of all the edits.
        delta : Tensor or None
            What this round has added to the weight already, ``(d_value, d_key)``: the
            step is a proximal one then.
        """

    def scaled(self, factor: float) -> "Prior":
        """Return the prior with its weight multiplied by ``factor`` > 0."""

    def plus(self, gram: Tensor) -> "Prior":
        """Return the prior that leaves the keys behind ``gram`` alone, too."""

    def to(self, like: Tensor) -> "Prior":
        """Return the prior on the device of ``like``."""


Priors = Mapping[str, Prior]
"""By the name of the edited weight."""


@dataclass(frozen=True, eq=False)
class RidgePrior:
    """Ridge regression: ``Delta = R K^T (C + K K^T)^-1`` with ``C = lambda C0``.

    Meng et al., "Mass-Editing Memory in a Transformer", ICLR 2023, eq. 14.

    Attributes
    ----------
    moment : Tensor
        ``C0``, ``(d_key, d_key)``, symmetric.
    weight : float
        ``lambda`` > 0. ``C`` is formed where it is solved with only: at the size of
        real models it is the largest thing that a server holds.

    Raises
    ------
    ConfigurationError
        If the weight is not positive.
    """

    moment: Tensor
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ConfigurationError(
                f"Expected a second_moment_weight > 0, found {self.weight}."
            )

    @property
    def d_key(self) -> int:
        """Width of the layer's keys."""
        return len(self.moment)

    @property
    def key_squares(self) -> Tensor:
        """The diagonal of ``C``."""
        return self.weight * self.moment.diagonal()

    def update(
        self, statistics: EditStatistics, *, delta: Tensor | None = None
    ) -> Tensor:
        """Return the update, see `flwr_collabedit.algebra.least_squares.solve_update`.

        Raises
        ------
        SingularSystemError, MatrixError
            As that does.
        """
        return solve_update(statistics, self._matrix(), delta=delta)

    def scaled(self, factor: float) -> Self:
        """Return the prior with ``factor C``."""
        return type(self)(self.moment, factor * self.weight)

    def plus(self, gram: Tensor) -> Self:
        """Return the prior with ``C + gram``."""
        return type(self)(self._matrix() + gram)

    def to(self, like: Tensor) -> Self:
        """Return the prior on the device of ``like``."""
        return type(self)(self.moment.to(like.device), self.weight)

    def _matrix(self) -> Tensor:
        return self.weight * self.moment.double()


def ridge_priors(
    second_moments: Mapping[str, Tensor], weight: float
) -> dict[str, RidgePrior]:
    """Return MEMIT's prior of every weight.

    Parameters
    ----------
    second_moments : mapping of str to Tensor
        ``C0 = E[k k^T]``, ``(d_key, d_key)``, by the weight's name.
    weight : float
        ``lambda`` > 0.
    """
    return {name: RidgePrior(one, weight) for name, one in second_moments.items()}
