"""Streaming estimate of the second moment of a layer's keys."""

import torch
from torch import Tensor

from flwr_collabedit.algebra.matrices import as_float64
from flwr_collabedit.algebra.shrinkage import ledoit_wolf_intensity, shrunk
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
        # A tensor, so that adding does not wait for an accelerator.
        self._fourth_powers = torch.zeros((), dtype=torch.float64, device=device)
        self._num_samples = 0

    @classmethod
    def restored(
        cls, total: Tensor, fourth_powers: Tensor, num_samples: int
    ) -> "SecondMoment":
        """Return the second moment with these sums, to the bit; they become its own.

        Parameters
        ----------
        total, fourth_powers, num_samples
            What the properties of these names gave; both tensors on one device.
        """
        result = cls(0)
        result._sum, result._fourth_powers = total, fourth_powers
        result._num_samples = num_samples
        return result

    @property
    def num_samples(self) -> int:
        """How many keys have been added."""
        return self._num_samples

    @property
    def total(self) -> Tensor:
        """``sum k k^T``, shape ``(d_key, d_key)``, float64; not a copy."""
        return self._sum

    @property
    def fourth_powers(self) -> Tensor:
        """``sum ||k||^4``, a float64 scalar; not a copy."""
        return self._fourth_powers

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
        self._fourth_powers += torch.linalg.vector_norm(rows, dim=1).pow(4).sum()
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
        self._fourth_powers += other._fourth_powers
        self._num_samples += other._num_samples

    def value(self, shrinkage: float = 0.0) -> Tensor:
        """Return ``sum k k^T / num_samples``, shape ``(d_key, d_key)``, float64.

        Parameters
        ----------
        shrinkage : float
            How far to shrink it towards a scaled identity, from 0 to 1; see `shrunk`.

        Raises
        ------
        SecondMomentError
            If no key has been added.
        """
        mean = self._mean()
        return shrunk(mean, shrinkage) if shrinkage else mean

    def shrinkage(self) -> float:
        """Return Ledoit and Wolf's intensity; see `ledoit_wolf_intensity`.

        Raises
        ------
        SecondMomentError
            If no key has been added.
        """
        return ledoit_wolf_intensity(
            self._mean(), self._fourth_powers, self._num_samples
        )

    def _mean(self) -> Tensor:
        if self._num_samples == 0:
            raise SecondMomentError(
                "expected at least one key, found none; add the keys of some text"
            )
        return self._sum / self._num_samples
