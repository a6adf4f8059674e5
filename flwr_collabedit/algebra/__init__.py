"""The mathematics of merging edits: torch only, no model, no file, no message."""

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.factors import SealedFactors, seal, seal_statistics
from flwr_collabedit.algebra.least_squares import (
    factor_cholesky,
    solve_update,
    solve_update_woodbury,
)
from flwr_collabedit.algebra.second_moment import SecondMoment

__all__ = [
    "EditStatistics",
    "SealedFactors",
    "SecondMoment",
    "factor_cholesky",
    "seal",
    "seal_statistics",
    "solve_update",
    "solve_update_woodbury",
]
