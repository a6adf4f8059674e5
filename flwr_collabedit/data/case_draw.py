"""Evaluation cases for facts of a world: new target, paraphrases, neighborhood."""

import random
from collections.abc import Sequence

from flwr_collabedit.data.facts import Fact, FactWorld
from flwr_collabedit.data.requests import EditRequest, EvaluationCase, Question

NUM_NEIGHBORS, NUM_SAME_SUBJECT = 8, 3


class CaseDraw:
    """Turns facts that are edited together into evaluation cases.

    No case asks about a fact that another case edits.
    """

    def __init__(
        self, world: FactWorld, edited: Sequence[Fact], rng: random.Random
    ) -> None:
        self._world = world
        self._edited = edited
        self._edited_facts = set(edited)
        self._edited_subjects = {fact.subject for fact in edited}
        self._rng = rng

    def case(self, number: int) -> EvaluationCase:
        """Return the case of the edited fact with this number."""
        fact = self._edited[number]
        others = [a for a in self._world.answers[fact.relation] if a != fact.answer]
        return EvaluationCase(
            request=EditRequest(
                case_id=number,
                prompt=fact.templates[0],
                subject=fact.subject,
                target_new=self._rng.choice(others),
                relation_id=fact.relation,
            ),
            target_true=fact.answer,
            paraphrase_prompts=tuple(map(fact.prompt, fact.held_out)),
            neighborhood=self._questions(self._neighbors(fact), NUM_NEIGHBORS),
            same_subject=self._questions(
                self._world.by_subject[fact.subject], NUM_SAME_SUBJECT
            ),
        )

    def _neighbors(self, fact: Fact) -> list[Fact]:
        """Return unedited subjects first, then the same relation, else at random."""
        neighbors = list(self._world.neighbors(fact))
        self._rng.shuffle(neighbors)
        return sorted(
            neighbors,
            key=lambda other: (
                other.subject in self._edited_subjects,
                other.relation != fact.relation,
            ),
        )

    def _questions(self, facts: Sequence[Fact], limit: int) -> tuple[Question, ...]:
        kept = [fact for fact in facts if fact not in self._edited_facts][:limit]
        return tuple(
            Question(prompt=fact.prompt(fact.templates[0]), answer=fact.answer)
            for fact in kept
        )
