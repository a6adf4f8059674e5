"""Streaming estimate of the second moment of a layer's keys."""

import torch
from torch import Tensor

from flwr_collabedit.algebra.matrices import as_float64
from flwr_collabedit.errors import MatrixError, SecondMomentError


class SecondMoment:
    """``C0 = E[k k^T]`` of keys that arrive in batches; uncentred.

    The papers call it the covariance (Meng et al., 2022, "Locating and Editing
    Factual Associations in GPT", NeurIPS, section 3.1). Adding in any batches and any
    order gives the same value up to rounding.

    Parameters
    ----------
    d_key : int
        Width of the keys.
    device : torch.device or str or None
        Where the sum is kept; the keys must be there too.
    """

    def __init__(self, d_key: int, device: torch.device | str | None = None) -> None:
        self._sum = torch.zeros(d_key, d_key, dtype=torch.float64, device=device)
        self._num_samples = 0

    @property
    def num_samples(self) -> int:
        """How many keys have been added."""
        return self._num_samples

    def add(self, keys: Tensor) -> None:
        """Add keys of shape ``(num, d_key)``, one a row; any floating point dtype.

        Raises
        ------
        MatrixError
            If the shape or dtype is another, or an entry is not finite; then nothing
            has been added.
        """
        rows = as_float64("keys", keys, shape=(None, len(self._sum)))
        self._sum.addmm_(rows.T, rows)
        self._num_samples += len(rows)

    def merge(self, other: "SecondMoment") -> None:
        """Add every key that ``other`` has seen; ``other`` stays as it is.

        Raises
        ------
        MatrixError
            If ``other`` is of another width.
        """
        if self._sum.shape != other._sum.shape:
            raise MatrixError(
                f"expected a second moment of width {len(self._sum)}, found "
                f"{len(other._sum)}; only those of one layer can be merged"
            )
        self._sum += other._sum
        self._num_samples += other._num_samples

    def value(self) -> Tensor:
        """Return ``sum k k^T / num_samples``, shape ``(d_key, d_key)``, float64.

        Raises
        ------
        SecondMomentError
            If no key has been added.
        """
        if self._num_samples == 0:
            raise SecondMomentError(
                "expected at least one key, found none; add the keys of some text"
            )
        return self._sum / self._num_samples
