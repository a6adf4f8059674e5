"""Everything that is measured of a set of cases: scores, generated answers, sums."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.evaluation.batches import Progress
from flwr_collabedit.evaluation.case_score import CaseScore, sums
from flwr_collabedit.evaluation.generation import CaseGeneration, generate_cases
from flwr_collabedit.evaluation.metrics import MetricSums
from flwr_collabedit.evaluation.scoring import score_cases
from flwr_collabedit.models.language_model import LanguageModel


@dataclass(frozen=True)
class Evaluation:
    """Scores and generated answers, case by case, in the order of the cases."""

    scores: list[CaseScore]
    generations: list[CaseGeneration]

    @property
    def sums(self) -> MetricSums:
        """Sums and counts of every metric over the cases."""
        return sums(self.scores) + sums(self.generations)

    def to_json_lines(self) -> str:
        """Return one JSON object a case and line, with every prompt's values."""
        return "".join(
            json.dumps(
                {"score": score.model_dump(), "generated": generated.model_dump()}
            )
            + "\n"
            for score, generated in zip(self.scores, self.generations, strict=True)
        )


def evaluate_cases(
    lm: LanguageModel,
    cases: Sequence[EvaluationCase],
    *,
    progress: Progress | None = None,
) -> Evaluation:
    """Return how the model, as it is now, answers the cases; it is not changed.

    ``progress`` is called with the prompts done and of all, first for the scores, then
    for the generated answers.
    """
    return Evaluation(
        score_cases(lm, cases, progress=progress),
        generate_cases(lm, cases, progress=progress),
    )
