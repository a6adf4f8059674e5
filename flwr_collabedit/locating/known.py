"""The facts that a model knows: only what is there can be traced."""

from collections.abc import Sequence
from dataclasses import dataclass

from flwr_collabedit.data.known_facts import KnownFact
from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.errors import (
    ConfigurationError,
    RequestFormatError,
    SubjectNotFoundError,
)
from flwr_collabedit.evaluation.batches import Progress
from flwr_collabedit.evaluation.scoring import score_cases
from flwr_collabedit.locating.traced_prompt import TracedPrompt
from flwr_collabedit.models.language_model import LanguageModel

_AT_ONCE = 64


@dataclass(frozen=True)
class KnownFacts:
    """What asking a model gave.

    Attributes
    ----------
    facts : tuple of KnownFact
        Those that it answers right.
    num_asked : int
        Facts that it was asked, the others among them.
    problems : tuple of str
        Why facts could not be asked, one sentence each.
    """

    facts: tuple[KnownFact, ...]
    num_asked: int
    problems: tuple[str, ...]


def find_known(
    lm: LanguageModel,
    facts: Sequence[KnownFact],
    *,
    most: int,
    progress: Progress | None = None,
) -> KnownFacts:
    """Return the first facts whose answer is the model's likeliest continuation.

    Every token of the answer must be the likeliest, given those before it.

    Parameters
    ----------
    lm : LanguageModel
        Not changed.
    facts : sequence of KnownFact
        Asked in their order, until ``most`` are known. One that does not fit the
        model's tokens or context is passed over.
    most : int
        How many to find at most, >= 1.
    progress : callable, optional
        Called after every batch with the number known and of ``most``.

    Raises
    ------
    ConfigurationError
        If the model knows none.
    NonFiniteOutputError
        If the model's logits are not finite.
    """
    known: list[KnownFact] = []
    problems: list[str] = []
    num_asked = 0
    for start in range(0, len(facts), _AT_ONCE):
        asked = []
        for fact in facts[start : start + _AT_ONCE]:
            try:
                TracedPrompt.of(lm, fact)
            except (RequestFormatError, SubjectNotFoundError) as error:
                problems.append(f"Fact {fact.fact_id!r}: {error}")
            else:
                asked.append(fact)
        num_asked += len(asked)
        scores = score_cases(lm, [_case(fact) for fact in asked])
        known += [
            fact
            for fact, score in zip(asked, scores, strict=True)
            if score.rewrite.expected.correct
        ]
        if progress is not None:
            progress(min(len(known), most), most)
        if len(known) >= most:
            break
    if not known:
        raise ConfigurationError(_none_known(lm, num_asked, problems))
    return KnownFacts(tuple(known[:most]), num_asked, tuple(problems))


def _case(fact: KnownFact) -> EvaluationCase:
    return EvaluationCase(
        request=EditRequest(
            case_id=fact.fact_id,
            prompt=fact.prompt,
            subject=fact.subject,
            target_new=fact.answer,
        )
    )


def _none_known(lm: LanguageModel, num_asked: int, problems: Sequence[str]) -> str:
    text = (
        f"Expected facts that {lm.name!r} knows; it gives the right answer to none of "
        f"{num_asked}. Use facts that are common knowledge, in the language of the "
        "model, and prompts that the answer follows as it is written."
    )
    if problems:
        text += f" {len(problems)} could not be asked; the first: {problems[0]}"
    return text
