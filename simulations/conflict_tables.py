"""Tables of contradicting edits: the paper's Table 4, and both sides' efficacy."""

from collections.abc import Mapping
from typing import Any

from flwr_collabedit.evaluation.report import Column, Row

CONFLICT_COLUMNS = (
    Column("when", "conflicts", "text"),
    Column("pairs", "pairs", "text"),
    Column("success", "success"),
    Column("probability_difference", "dP"),
    Column("winners", "winners' EA"),
    Column("losers", "losers' EA"),
)
CONFLICT_LEGEND = (
    "success: pairs whose winner's target is the likelier; dP: mean difference of the "
    "two targets' probabilities, in percent points; unresolved: the same pairs where "
    "one party with all edits writes both."
)


def conflict_rows(conflicts: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a ``summary.json``'s conflicts, none for no pair."""
    shown = {"unresolved": "before", "this run": "after"}
    return [
        {
            "when": when,
            "pairs": str(conflicts["pairs"]),
            "success": found["success"],
            "probability_difference": found["probability_difference"],
            "winners": found["winners"]["EA"],
            "losers": found["losers"]["EA"],
        }
        for when, key in shown.items()
        if (found := conflicts.get(key))
    ]
