"""How large a client's contribution is for its number of edits.

Root mean squares over edits, which do not grow with how many there are, so that a
client with many edits and one with few can be held to one bound.
"""

import math

from torch import Tensor
from torch.linalg import vector_norm

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.factors import SealedFactors, seal_statistics
from flwr_collabedit.errors import MatrixError

# Of the largest diagonal entry of a gram matrix that travelled in float32.
_TOLERANCE = 1e-6
# Honest directions below it hold sqrt(1e-6) of the cross matrix at most, times the
# ratio of two edits' residuals.
_UNEXPLAINED = 1e-2


def statistics_sizes(
    found: EditStatistics | SealedFactors, *, one_key_an_edit: bool = True
) -> tuple[float, float]:
    """Return the root mean square norms of keys and residuals.

    Parameters
    ----------
    found : EditStatistics or SealedFactors
        Of ``n`` edits.
    one_key_an_edit : bool
        Whether there cannot be more keys than edits.

    Returns
    -------
    tuple of float
        ``||K||_F / sqrt(n)`` and ``||R P||_F / sqrt(n)``, with ``P`` the projector on
        the row space of ``K``: all of ``R`` that the two matrices show. 0 for no edits.

    Raises
    ------
    MatrixError
        If ``gram`` has a higher rank than there are edits, or ``cross`` is no
        ``R K^T`` of keys with this gram matrix.
    """
    if isinstance(found, EditStatistics):
        sealed = seal_statistics(found, tolerance=_TOLERANCE)
        if one_key_an_edit and sealed.rank > found.num_edits:
            raise MatrixError(
                f"gram has rank {sealed.rank}, but stands for {found.num_edits} edits."
            )
        left = found.cross - sealed.residual_factor @ sealed.key_factor.T
        if vector_norm(left) > _UNEXPLAINED * vector_norm(found.cross):
            raise MatrixError(
                "cross is not R K^T of any edits whose keys have this gram matrix."
            )
    else:
        sealed = found
    return (
        root_mean_square(sealed.key_factor, found.num_edits),
        root_mean_square(sealed.residual_factor, found.num_edits),
    )


def root_mean_square(matrix: Tensor, num_edits: int) -> float:
    """Return the Frobenius norm over the square root of the number of edits."""
    return float(vector_norm(matrix.double())) / math.sqrt(max(num_edits, 1))
