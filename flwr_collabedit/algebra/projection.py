"""AlphaEdit's closed form: ridge regression in the null space of what the model knew.

Fang et al. "AlphaEdit: Null-Space Constrained Knowledge Editing for Language Models",
ICLR 2025, https://arxiv.org/abs/2410.02355, section 3. With the projector ``P`` onto
the eigenvectors of ``C0 = E[k k^T]`` whose eigenvalues are below a threshold, the
published code solves ``X = (P (K K^T + K_p K_p^T) + l2 I)^-1 P K R^T`` and adds
``X^T``. Its system is not symmetric. In the coordinates ``U`` of the null space,
``P = U U^T``, the same update is

    Delta = R K^T U (U^T (K K^T + K_p K_p^T) U + l2 I)^-1 U^T

which is smaller, symmetric and positive definite, and needs the two sums alone: what
clients send for MEMIT merges into what one party would have written here, too.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.least_squares import check_symmetric, solve_update
from flwr_collabedit.algebra.matrices import as_float64
from flwr_collabedit.errors import ConfigurationError, SingularSystemError


def null_space_basis(second_moment: Tensor, threshold: float) -> Tensor:
    """Return an orthonormal basis of the directions that keys hardly use.

    Parameters
    ----------
    second_moment : Tensor
        ``C0 = E[k k^T]``, unweighted, ``(d_key, d_key)``, symmetric.
    threshold : float
        Eigenvalues below it count as zero, > 0. Absolute, as published (0.02), in the
        units of a squared key: what suits one model need not suit another. A larger one
        leaves edits more room, and what the model knew less protection: along each
        direction of the basis the mean square of its keys is below the threshold.

    Returns
    -------
    Tensor
        ``U``, ``(d_key, r)``, float64, with ``0 < r < d_key``.

    Raises
    ------
    ConfigurationError
        If no eigenvalue is below the threshold, or every one is.
    MatrixError
        If the second moment is not finite or not symmetric.

    Notes
    -----
    ``O(d_key^3)``, once for a layer.
    """
    moment = as_float64(
        "second moment", second_moment, shape=(None, len(second_moment))
    )
    check_symmetric("second moment", moment)
    values, vectors = torch.linalg.eigh(moment)
    rank = int((values < threshold).sum())
    if 0 < rank < len(values):
        basis: Tensor = vectors[:, :rank].contiguous()
        return basis
    low, middle, high = (float(values[i]) for i in (0, len(values) // 2, -1))
    gives = "nothing could be edited; raise" if rank == 0 else "nothing is kept; lower"
    raise ConfigurationError(
        f"Expected a nullspace_threshold between the eigenvalues of the second moment "
        f"(smallest {low:.3g}, median {middle:.3g}, largest {high:.3g}), found "
        f"{threshold:g}: {gives} it. It is in the units of this model's squared keys."
    )


@dataclass(frozen=True, eq=False)
class NullSpacePrior:
    """AlphaEdit's: keys outside the null space are left alone, those in it are free.

    The step ``d = E U^T`` minimises ``||d K - R||^2 + l2 ||Delta + d||^2 +
    ||(Delta + d) K_p||^2`` over ``E``, where ``K_p`` are the keys of earlier edits
    (``plus``; AlphaEdit's ``cache_c`` is ``K_p K_p^T``).

    Attributes
    ----------
    basis : Tensor
        ``U``, ``(d_key, r)``, float64, of orthonormal columns.
    l2 : float
        Weight of the squared update, > 0 (``L2``).
    key_squares : Tensor
        The diagonal of ``C0``, ``(d_key,)``.
    kept : Tensor
        ``U^T K_p K_p^T U``, ``(r, r)``, float64.
    """

    basis: Tensor
    l2: float
    key_squares: Tensor
    kept: Tensor

    @classmethod
    def of(cls, second_moment: Tensor, threshold: float, l2: float) -> Self:
        """Return the prior before any edit.

        Parameters
        ----------
        second_moment, threshold
            See `null_space_basis`, which finds the null space here, once.
        l2 : float
            Weight of the squared update, > 0.

        Raises
        ------
        ConfigurationError, MatrixError
            As `null_space_basis` does.
        """
        basis = null_space_basis(second_moment, threshold)
        kept = basis.new_zeros(basis.shape[1], basis.shape[1])
        return cls(basis, l2, second_moment.diagonal(), kept)

    @property
    def d_key(self) -> int:
        """Width of the layer's keys."""
        return len(self.basis)

    def update(
        self, statistics: EditStatistics, *, delta: Tensor | None = None
    ) -> Tensor:
        """Return the weight update, ``(d_value, d_key)``, float64.

        In the coordinates of the null space it is
        `flwr_collabedit.algebra.least_squares.solve_update` with the prior
        ``l2 I + U^T K_p K_p^T U``.

        Parameters
        ----------
        statistics : EditStatistics
            Of all the edits.
        delta : Tensor or None
            What this round has added to the weight already, ``(d_value, d_key)``, by
            solves with this prior: its rows lie in the null space.

        Raises
        ------
        SingularSystemError
            If ``l2`` vanishes beside the edits' keys.
        MatrixError
            If a matrix does not fit or is not finite.
        """
        inner = EditStatistics(
            self._inside(as_float64("gram", statistics.gram, shape=(self.d_key,) * 2)),
            statistics.cross @ self.basis,
            statistics.num_edits,
        )
        prior = self.kept.clone()
        prior.diagonal().add_(self.l2)
        written = None if delta is None else delta.double() @ self.basis
        try:
            step = solve_update(inner, prior, delta=written)
        except SingularSystemError as error:
            raise SingularSystemError(
                f"in the null space of the second moment {error}, or raise l2, which "
                f"is {self.l2:g}"
            ) from error
        return step @ self.basis.T

    def scaled(self, factor: float) -> Self:
        """Return the prior with ``factor l2``, earlier keys weighted alike."""
        return replace(self, l2=factor * self.l2, kept=factor * self.kept)

    def plus(self, gram: Tensor) -> Self:
        """Return the prior that leaves the keys behind ``gram`` alone, too."""
        return replace(self, kept=self.kept + self._inside(gram))

    def to(self, like: Tensor) -> Self:
        """Return the prior on the device of ``like``."""
        moved = {
            name: getattr(self, name).to(like.device)
            for name in ("basis", "key_squares", "kept")
        }
        return replace(self, **moved)

    def _inside(self, gram: Tensor) -> Tensor:
        """Return a Gram matrix of keys in the coordinates of the null space."""
        return self.basis.T @ gram @ self.basis
