"""What two contradicting edits have left of each other: the paper's Tables 4 and 6.

Zheng et al. "CollabEdit: Towards Non-destructive Collaborative Knowledge Editing",
    ICLR 2025, section 5.3 and appendix C.

A difference is the winner's minus the loser's, as in the paper's text. The summary
script of its published code subtracts the other way round.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.evaluation.batches import Progress
from flwr_collabedit.evaluation.case_score import CaseScore, PromptScore, sums
from flwr_collabedit.evaluation.metrics import summarize
from flwr_collabedit.evaluation.scoring import score_cases
from flwr_collabedit.models.language_model import LanguageModel

Pair = tuple[EvaluationCase, EvaluationCase]
"""The case that was to win, and the one that contradicts it."""


@dataclass(frozen=True)
class PairScore:
    """How one winner stands against its loser.

    Attributes
    ----------
    contest : PromptScore
        On the winner's rewrite prompt: ``expected`` is the winner's target, ``rival``
        the loser's.
    winner, loser : CaseScore
        Each case scored as if it were alone, against its answer before the edit.
    """

    contest: PromptScore
    winner: CaseScore
    loser: CaseScore

    @property
    def probability_difference(self) -> float:
        """``exp(-loss)`` of the winner's target minus that of the loser's.

        In [-1, 1]; ``exp(-loss)`` is the geometric mean of the target's token
        probabilities.
        """
        return math.exp(-self.contest.expected.loss) - math.exp(-self._rival_loss)

    @property
    def success(self) -> bool:
        """Whether the winner's target is the likelier; a tie is none."""
        return self.contest.expected.loss < self._rival_loss

    @property
    def _rival_loss(self) -> float:
        assert self.contest.rival is not None  # `_contest` gives every case one
        return self.contest.rival.loss


def score_pairs(
    lm: LanguageModel,
    pairs: Iterable[Pair],
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> list[PairScore]:
    """Return the score of every pair on the model as it is now; it is not changed.

    Parameters
    ----------
    lm : LanguageModel
        The base model with whatever edits are to be judged.
    pairs : iterable of (EvaluationCase, EvaluationCase)
        Winner first, such as a `flwr_collabedit.data.conflicts.ConflictPair`.
    batch_size, progress
        As for `flwr_collabedit.evaluation.scoring.score_cases`, whose errors come
        through.
    """
    known = list(pairs)
    cases = [(_contest(winner, loser), winner, loser) for winner, loser in known]
    scores = score_cases(
        lm,
        list(chain.from_iterable(cases)),
        batch_size=batch_size,
        progress=progress,
    )
    return [
        PairScore(contest.rewrite, winner, loser)
        for contest, winner, loser in zip(
            scores[::3], scores[1::3], scores[2::3], strict=True
        )
    ]


def summarize_contests(scores: Sequence[PairScore]) -> dict[str, float | None]:
    """Return Table 4's numbers, in percent; ``None`` where there is no pair.

    Returns
    -------
    dict of str to float or None
        ``probability_difference``: its mean over pairs, in percent points
        (Avg-``Delta_P``); positive where winners are likelier. ``success``: pairs whose
        winner's target is likelier than the loser's. ``answered``: pairs in which every
        token of the winner's target is the likeliest of all. The paper's Succ is "the
        target knowledge is the final output"; between two targets that is ``success``,
        among all tokens ``answered``.
    """
    return {
        "probability_difference": _percent(s.probability_difference for s in scores),
        "success": _percent(s.success for s in scores),
        "answered": _percent(s.contest.expected.correct for s in scores),
    }


def summarize_sides(
    scores: Sequence[PairScore],
) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Return Table 6's numbers of the winners and of the losers.

    Both as `flwr_collabedit.evaluation.metrics.summarize` has them: ES, EA, PS, PA, NS,
    NA and their Scores. What a row of the table says depends on the model. After the
    winners' edits alone, the first is the paper's "Edit E"; after the winners' and then
    the losers', it is "Edit E and E'" (the published code's ``Performance_B``) and the
    second is how the losers fare (``Performance_[A+B]``); after the losers' alone, the
    second is ``single_B``.
    """
    return (
        summarize(sums(score.winner for score in scores)),
        summarize(sums(score.loser for score in scores)),
    )


def _contest(winner: EvaluationCase, loser: EvaluationCase) -> EvaluationCase:
    """Return a case in which the loser's target is the answer to be beaten."""
    return EvaluationCase(request=winner.request, target_true=loser.request.target_new)


def _percent(values: Iterable[float]) -> float | None:
    numbers = list(values)
    return 100 * math.fsum(numbers) / len(numbers) if numbers else None
