"""Generated exact match: whether the edited model itself writes the new target.

Teacher forcing shows the model the target's length and its first tokens, and asks only
for the next one. It flatters: on the same edits, success fell from 96.8 % to 38.5 %
when the answers were generated (Yang et al., 2025, The Mirage of Model Editing, ACL
2025, https://arxiv.org/abs/2502.11177). So the answer is generated here, greedily,
from the prompt alone, for some tokens more than the target has, since the text must
also end the target's last word.
"""

import re
from collections.abc import Sequence
from itertools import chain
from statistics import fmean

from pydantic import BaseModel, ConfigDict

from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.evaluation.batches import Progress
from flwr_collabedit.evaluation.continuation import continue_greedily
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.tokens import tokenize

EXTRA_TOKENS = 3


class GeneratedAnswer(BaseModel):
    """What the model wrote after a prompt, and whether that begins with the target."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str
    text: str
    match: bool


class CaseGeneration(BaseModel):
    """The generated answers of one case; summed like a ``CaseScore``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case_id: int | str
    target: str
    rewrite: GeneratedAnswer
    paraphrases: tuple[GeneratedAnswer, ...] = ()

    def metrics(self) -> dict[str, float]:
        """Return the fraction of the case's prompts that were answered as asked."""
        values = {"generated-efficacy": float(self.rewrite.match)}
        if self.paraphrases:
            values["generated-paraphrase"] = fmean(a.match for a in self.paraphrases)
        return values


def generate_cases(
    lm: LanguageModel,
    cases: Sequence[EvaluationCase],
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> list[CaseGeneration]:
    """Return what the model answers to every case's rewrite and paraphrase prompts.

    Parameters
    ----------
    lm : LanguageModel
        The model to question. It is not changed.
    cases : sequence of EvaluationCase
        What is asked; the neighborhood and same-subject questions are not.
    batch_size : int
        Prompts generated from together, >= 1.
    progress : callable, optional
        Called after every batch with the number of prompts done and of all.

    Raises
    ------
    RequestFormatError
        If a prompt leaves no room for the answer in the model's context.
    """
    questions = [_questions(case) for case in cases]
    unique = list(dict.fromkeys(chain.from_iterable(questions)))
    texts = continue_greedily(
        lm,
        [prompt for prompt, _ in unique],
        [_target_length(lm, question) + EXTRA_TOKENS for question in unique],
        batch_size=batch_size,
        progress=progress,
    )
    answers = {
        (prompt, target): GeneratedAnswer(
            prompt=prompt, text=text, match=begins_with_target(prompt, text, target)
        )
        for (prompt, target), text in zip(unique, texts, strict=True)
    }
    return [
        CaseGeneration(
            case_id=case.request.case_id,
            target=case.request.target_new,
            rewrite=answers[asked[0]],
            paraphrases=tuple(answers[question] for question in asked[1:]),
        )
        for case, asked in zip(cases, questions, strict=True)
    ]


def begins_with_target(prompt: str, text: str, target: str) -> bool:
    """Return whether ``text``, which continues ``prompt``, begins with the target.

    White space before the target is passed over. The target must stand as words of its
    own: neither the text nor the prompt's end may continue one. Case matters.

    Examples
    --------
    >>> begins_with_target("She lives in", " Paris, the capital", "Paris")
    True
    >>> begins_with_target("She lives in", " Parisian style", "Paris")
    False
    >>> begins_with_target("He is on an is", "land", "land")
    False
    """
    pattern = re.compile(rf"\s*(?<!\w){re.escape(target)}(?!\w)")
    return pattern.match(prompt + text, len(prompt)) is not None


def _questions(case: EvaluationCase) -> list[tuple[str, str]]:
    prompts = (case.rewrite_prompt, *case.paraphrase_prompts)
    return [(prompt, case.request.target_new) for prompt in prompts]


def _target_length(lm: LanguageModel, question: tuple[str, str]) -> int:
    prompt, target = question
    return len(tokenize(lm.tokenizer, prompt, target=target).target_ids)
