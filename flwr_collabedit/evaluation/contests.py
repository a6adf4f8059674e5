"""What scoring asks a model about one case: prompts, and the targets that compete.

CounterFact's contests (KNOWLEDGE_EDITING.md 6.1): the new target should beat the old
answer on the rewrite and paraphrase prompts, and the question's own answer should beat
the new target on the neighborhood prompts.
"""

from collections.abc import Iterable
from typing import NamedTuple

from flwr_collabedit.data.requests import EvaluationCase


class Text(NamedTuple):
    """A complete prompt and a target that may follow it."""

    prompt: str
    target: str


class Contest(NamedTuple):
    """A prompt, the target it should get, and the one that must not win."""

    prompt: str
    expected: str
    rival: str | None

    def texts(self) -> list[Text]:
        """Return the one or two texts to read: with the expected target first."""
        targets = (self.expected, self.rival)
        return [Text(self.prompt, target) for target in targets if target is not None]


class CaseContests(NamedTuple):
    """The contests of one case, grouped as in ``CaseScore``."""

    rewrite: tuple[Contest, ...]
    paraphrases: tuple[Contest, ...]
    neighborhood: tuple[Contest, ...]
    same_subject: tuple[Contest, ...]
    multi_hop: tuple[Contest, ...]
    """Every wording of every question with every name of its answer, in this order."""


def contests_of(case: EvaluationCase) -> CaseContests:
    """Return the contests of a case; without ``target_true`` nothing has a rival."""
    new, true = case.request.target_new, case.target_true
    rival = None if true is None else new
    return CaseContests(
        rewrite=(Contest(case.rewrite_prompt, new, true),),
        paraphrases=tuple(Contest(p, new, true) for p in case.paraphrase_prompts),
        neighborhood=tuple(
            Contest(question.prompt, question.answer, rival)
            for question in case.neighborhood
        ),
        same_subject=tuple(
            Contest(question.prompt, question.answer, None)
            for question in case.same_subject
        ),
        multi_hop=tuple(
            Contest(phrasing, answer, None)
            for question in case.multi_hop
            for phrasing in question.phrasings
            for answer in question.answers
        ),
    )


def texts_of(groups: CaseContests) -> Iterable[Text]:
    """Return all texts to read, a text as often as it is asked about."""
    return (text for group in groups for contest in group for text in contest.texts())
