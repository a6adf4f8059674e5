"""What one client's reply adds to a sum: its statistics, their sizes, their tensors."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.factors import SealedFactors
from flwr_collabedit.algebra.sizes import statistics_sizes
from flwr_collabedit.errors import MatrixError, PayloadError

Contribution = EditStatistics | SealedFactors
"""Of one weight, in the form that it came in."""


def as_statistics(found: Contribution) -> EditStatistics:
    """Return the two sums of a contribution, in float64."""
    return found.statistics() if isinstance(found, SealedFactors) else found


def sizes_of(
    found: Mapping[str, Contribution], *, one_key_an_edit: bool = True
) -> dict[str, float]:
    """Return how large the keys of each weight and the residuals are, an edit.

    Parameters
    ----------
    found : mapping of str to Contribution
        By weight.
    one_key_an_edit : bool
        Whether there cannot be more keys than edits.

    Raises
    ------
    PayloadError
        If a weight's two matrices cannot be of the same edits.
    """
    sizes = {"residuals": 0.0}
    for name, one in found.items():
        try:
            keys, residuals = statistics_sizes(one, one_key_an_edit=one_key_an_edit)
        except MatrixError as error:
            raise PayloadError(f"{name}: {error}") from None
        sizes[f"keys of {name}"] = keys
        sizes["residuals"] = max(sizes["residuals"], residuals)
    return sizes


def to_tensors(found: Mapping[str, Contribution]) -> dict[str, Tensor]:
    """Return a reply's statistics as tensors, under ``<parameter>/<part>``."""
    tensors: dict[str, Tensor] = {}
    for name, one in found.items():
        parts = (
            {"key_factor": one.key_factor, "residual_factor": one.residual_factor}
            if isinstance(one, SealedFactors)
            else {"gram": one.gram, "cross": one.cross}
        )
        tensors |= {f"{name}/{part}": tensor for part, tensor in parts.items()}
    return tensors


def from_tensors(
    tensors: Mapping[str, Tensor], measured: Sequence[str], num_edits: int
) -> dict[str, Contribution]:
    """Return what :func:`to_tensors` was given."""
    found: dict[str, Contribution] = {}
    for name in measured:
        if f"{name}/gram" in tensors:
            gram, cross = tensors[f"{name}/gram"], tensors[f"{name}/cross"]
            found[name] = EditStatistics(gram, cross, num_edits)
        else:
            key = tensors[f"{name}/key_factor"]
            residual = tensors[f"{name}/residual_factor"]
            found[name] = SealedFactors(key, residual, num_edits)
    return found
