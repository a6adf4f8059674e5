"""Everything that is measured of a set of cases: scores, generated answers, sums."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.evaluation.batches import Progress
from flwr_collabedit.evaluation.case_score import CaseScore, sums
from flwr_collabedit.evaluation.generation import CaseGeneration, generate_cases
from flwr_collabedit.evaluation.metrics import MetricSums
from flwr_collabedit.evaluation.scoring import score_cases
from flwr_collabedit.evaluation.text_quality import CaseTexts, TextQuality, write_texts
from flwr_collabedit.models.language_model import LanguageModel


@dataclass(frozen=True)
class Evaluation:
    """Scores and generated answers, case by case, in the order of the cases.

    ``texts``, what was written freely, is empty where that was not asked for.
    """

    scores: list[CaseScore]
    generations: list[CaseGeneration]
    texts: list[CaseTexts] = field(default_factory=list)

    @property
    def sums(self) -> MetricSums:
        """Sums and counts of every metric over the cases."""
        return sums(self.scores) + sums(self.generations) + sums(self.texts)

    def to_json_lines(self) -> str:
        """Return one JSON object a case and line, with every prompt's values."""
        parts = {"score": self.scores, "generated": self.generations}
        if self.texts:
            parts["texts"] = self.texts
        return "".join(
            json.dumps(
                {
                    name: found.model_dump()
                    for name, found in zip(parts, case, strict=True)
                }
            )
            + "\n"
            for case in zip(*parts.values(), strict=True)
        )


def evaluate_cases(
    lm: LanguageModel,
    cases: Sequence[EvaluationCase],
    *,
    text_quality: TextQuality | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Return how the model, as it is now, answers the cases; it is not changed.

    Parameters
    ----------
    lm, cases
        The model and what it is asked.
    text_quality : TextQuality or None
        How free text is written, for fluency and consistency; ``None`` writes none.
        Ten texts of 100 tokens a case cost far more than all other measures.
    progress : callable, optional
        Called with the prompts done and of all, first for the scores, then for the
        generated answers, then for the texts.
    """
    return Evaluation(
        score_cases(lm, cases, progress=progress),
        generate_cases(lm, cases, progress=progress),
        []
        if text_quality is None
        else write_texts(lm, cases, text_quality, progress=progress),
    )
