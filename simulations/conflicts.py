"""How the winners of conflicts stand against the losers, as the paper's Table 4."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from flwr_collabedit.data.conflicts import conflict_pairs
from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.evaluation.conflict_measures import (
    Pair,
    score_pairs,
    summarize_contests,
    summarize_sides,
)
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import applied_deltas
from simulations.experiment import Rounds


def judged_pairs(
    clients: Sequence[Rounds], active: Sequence[EvaluationCase]
) -> list[Pair]:
    """Return every pair of contradicting cases, the winner first.

    The winner is the one whose target some active case of the fact has; where both or
    none have, the case that was contradicted.
    """
    everything = [case for rounds in clients for cases in rounds for case in cases]
    wanted = {_fact(case) for case in active}
    pairs: list[Pair] = []
    for first, second in conflict_pairs(everything):
        second_alone = _fact(second) in wanted and _fact(first) not in wanted
        pairs.append((second, first) if second_alone else (first, second))
    return pairs


def unresolved_requests(clients: Sequence[Rounds]) -> list[list[EditRequest]]:
    """Return what each round would write if nobody left anything out."""
    num_rounds = max(len(rounds) for rounds in clients)
    return [
        [case.request for rounds in clients for case in rounds[number]]
        for number in range(num_rounds)
    ]


def conflict_figures(
    lm: LanguageModel, pairs: Sequence[Pair], deltas: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Return success and probability difference of the winners, and both sides' scores.

    Parameters
    ----------
    lm : LanguageModel
        The base model.
    pairs : sequence of (EvaluationCase, EvaluationCase)
        Winner first.
    deltas : mapping of str to Tensor
        Of the model that is judged, ``(d_value, d_key)``.
    """
    with applied_deltas(lm, deltas):
        scores = score_pairs(lm, pairs)
    winners, losers = summarize_sides(scores)
    return {
        **summarize_contests(scores),
        "winners": {name: winners[name] for name in ("ES", "EA")},
        "losers": {name: losers[name] for name in ("ES", "EA")},
    }


def _fact(case: EvaluationCase) -> tuple[str, str, str]:
    request = case.request
    return request.subject, request.prompt, request.target_new
