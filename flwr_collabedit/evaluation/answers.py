"""What a model answers to a question, and how sure it is: for a reader's eye."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.errors import RequestFormatError
from flwr_collabedit.evaluation.scoring import score_cases
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.tokens import tokenize

_ENDS = (".", "!", "?", "\n")


@dataclass(frozen=True)
class Answer:
    """The likeliest answer to one prompt.

    Attributes
    ----------
    text : str
        Written greedily up to the end of the text or of the sentence.
    probability : float
        Of all of its tokens, one after another, in [0, 1].
    next_tokens : tuple of (str, float)
        The likeliest first tokens and their probabilities, the likeliest first.
    """

    text: str
    probability: float
    next_tokens: tuple[tuple[str, float], ...]


@torch.no_grad()
def answer(
    lm: LanguageModel, prompt: str, *, max_tokens: int = 12, top: int = 3
) -> Answer:
    """Return what the model, as it is now, answers to a complete prompt.

    Parameters
    ----------
    lm : LanguageModel
        It is not changed, and its own generation settings are not applied.
    prompt : str
        The text that is continued.
    max_tokens : int
        The answer ends there at the latest, >= 1.
    top : int
        How many first tokens to name; all, if the model has fewer.

    Raises
    ------
    RequestFormatError
        If the prompt has no tokens, or leaves no room for an answer.
    """
    ids = list(tokenize(lm.tokenizer, prompt).input_ids)
    if not 0 < len(ids) < lm.max_length:
        raise RequestFormatError(
            f"Expected a prompt of 1 to {lm.max_length - 1} tokens, found {len(ids)}. "
            "Ask something else, or in fewer words."
        )
    start, log_probability = len(ids), 0.0
    first: tuple[tuple[str, float], ...] = ()
    for _ in range(min(max_tokens, lm.max_length - start)):
        row = torch.tensor([ids], device=lm.device)
        hidden = lm.decoder(
            input_ids=row, attention_mask=torch.ones_like(row), use_cache=False
        ).last_hidden_state  # (1, position, d_model)
        logs = lm.logits(hidden[0, -1]).double().log_softmax(0)  # (vocab,)
        if not first:
            best = logs.topk(min(top, len(logs)))
            first = tuple(
                (_written(lm, ids, [int(token)]).strip(), math.exp(float(value)))
                for token, value in zip(best.indices, best.values, strict=True)
            )
        token = int(logs.argmax())
        text = _written(lm, ids[:start], [*ids[start:], token])
        if token == lm.tokenizer.eos_token_id or text.rstrip(" ").endswith(_ENDS):
            break
        ids.append(token)
        log_probability += float(logs[token])
    return Answer(
        _written(lm, ids[:start], ids[start:]).strip(),
        math.exp(log_probability),
        first,
    )


def target_probabilities(
    lm: LanguageModel, prompt: str, targets: Sequence[str]
) -> dict[str, float]:
    """Return the probability of each target's tokens, all of them, after the prompt.

    Raises
    ------
    RequestFormatError
        If a target is empty, or too long for the model with its prompt.
    """
    if not all(target.strip() for target in targets):
        raise RequestFormatError("Expected an answer of a word or more, found none.")
    cases = [
        EvaluationCase(
            request=EditRequest(
                case_id=number, prompt="{}", subject=prompt, target_new=target
            )
        )
        for number, target in enumerate(targets)
    ]
    found = {}
    for target, score in zip(targets, score_cases(lm, cases), strict=True):
        length = len(tokenize(lm.tokenizer, prompt, target=target).target_ids)
        found[target] = math.exp(-score.rewrite.expected.loss * length)
    return found


def _written(lm: LanguageModel, before: list[int], new: list[int]) -> str:
    """Decode with the text before: alone, some tokenizers drop the first space."""
    texts = [
        str(lm.tokenizer.decode(ids, skip_special_tokens=True))
        for ids in (before, before + new)
    ]
    return texts[1][len(texts[0]) :]
