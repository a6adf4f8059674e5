"""Evaluation cases as the batches that a hypernetwork is trained on."""

import random
from collections.abc import Sequence
from functools import cache

from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.editors.label_gradients import LabelRow
from flwr_collabedit.editors.meta_step import MetaBatch
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.tokens import tokenize


class MetaBatches:
    """Draws batches of edits, each step's by itself, so that none has a state.

    Parameters
    ----------
    lm : LanguageModel
        Whose tokens the rows are.
    cases : sequence of EvaluationCase
        Paraphrases are other wordings of an edit; neighborhood and other facts about
        the same subject are what it is to leave alone.
    num_edits : int
        A batch's; no two of one subject, which would contradict each other.
    kept_per_edit : int
        Questions drawn for every edit, of those that it is to leave alone.
    seed : int
        Decides, with the step, the draw.

    Raises
    ------
    ConfigurationError
        If the cases have fewer subjects than a batch, or none has a question to keep.
    """

    def __init__(
        self,
        lm: LanguageModel,
        cases: Sequence[EvaluationCase],
        num_edits: int,
        *,
        kept_per_edit: int = 2,
        seed: int = 0,
    ) -> None:
        subjects = {case.request.subject for case in cases}
        if len(subjects) < num_edits:
            raise ConfigurationError(
                f"Expected training facts about at least {num_edits} subjects, the "
                f"edits of a batch; found {len(subjects)}. Give more facts, or make "
                "the batch smaller."
            )
        if not any(case.neighborhood or case.same_subject for case in cases):
            raise ConfigurationError(
                "Expected training facts with questions that an edit is to leave alone "
                "(neighborhood), found none. A hypernetwork that is not trained for "
                "locality damages the model; give a data set that has them."
            )
        self._cases, self._num_edits = cases, num_edits
        self._kept_per_edit, self._seed = kept_per_edit, seed

        @cache
        def row(prompt: str, answer: str) -> LabelRow:
            return LabelRow.of(tokenize(lm.tokenizer, prompt, target=answer))

        self._row = row

    def batch(self, step: int) -> MetaBatch:
        """Return the edits of a step, and what is asked after them."""
        rng = random.Random(f"{self._seed}/{step}")
        drawn = self._drawn(rng)
        edited = {case.rewrite_prompt for case in drawn}
        wanted, kept = [], []
        for case in drawn:
            target = case.request.target_new
            others = case.paraphrase_prompts
            prompts = [case.rewrite_prompt, *rng.sample(others, min(1, len(others)))]
            wanted += [self._row(prompt, target) for prompt in prompts]
            questions = [
                asked
                for asked in (*case.neighborhood, *case.same_subject)
                if asked.prompt not in edited
            ]
            drawn_questions = rng.sample(
                questions, min(self._kept_per_edit, len(questions))
            )
            kept += [self._row(asked.prompt, asked.answer) for asked in drawn_questions]
        return MetaBatch(
            tuple(case.request for case in drawn), tuple(wanted), tuple(kept)
        )

    def _drawn(self, rng: random.Random) -> list[EvaluationCase]:
        drawn: dict[str, EvaluationCase] = {}
        while len(drawn) < self._num_edits:
            case = rng.choice(self._cases)
            drawn.setdefault(case.request.subject, case)
        return list(drawn.values())
