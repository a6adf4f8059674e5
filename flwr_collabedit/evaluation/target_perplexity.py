"""How unlikely a model holds what it is to say: the target's perplexity.

Huang, Liu et al., "Reasons and Solutions for the Decline in Model Performance after
    Editing" (D4S), NeurIPS 2024, equation 1 and section 3.3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.evaluation.scoring import score_cases
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.tokens import tokenize


@dataclass(frozen=True)
class TargetPerplexity:
    """One edit's target as a model sees it, and how long the edit is.

    Attributes
    ----------
    perplexity : float
        ``exp(-1/t sum_i ln p(x_i | prompt, x_<i))`` over the target's ``t`` tokens.
    prompt_tokens, target_tokens : int
        The prompt's tokens (with the special ones that the tokenizer puts first) and
        the target's.
    """

    perplexity: float
    prompt_tokens: int
    target_tokens: int


def target_perplexities(
    lm: LanguageModel, requests: Sequence[EditRequest], *, batch_size: int = 64
) -> list[TargetPerplexity]:
    """Return each request's, in order, on the model as it is now.

    Raises
    ------
    RequestFormatError
        If a prompt with its target is longer than the model's context.
    NonFiniteOutputError
        If the model's logits are not finite.
    """
    cases = [EvaluationCase(request=request) for request in requests]
    scores = score_cases(lm, cases, batch_size=batch_size)
    return [
        _perplexity(lm, case, score.rewrite.expected.loss)
        for case, score in zip(cases, scores, strict=True)
    ]


def _perplexity(
    lm: LanguageModel, case: EvaluationCase, loss: float
) -> TargetPerplexity:
    text = tokenize(lm.tokenizer, case.rewrite_prompt, target=case.request.target_new)
    return TargetPerplexity(math.exp(loss), text.target_start, len(text.target_ids))
