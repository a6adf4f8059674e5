"""The facts of the embedded model's world, and how they are looked up."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Kind = Literal["real", "invented"]


@dataclass(frozen=True)
class Fact:
    """One fact and the ways to ask for it.

    Attributes
    ----------
    subject, relation, answer : str
        For example "France", "capital", "Paris".
    kind : {"real", "invented"}
        Whether the subject exists outside this package.
    templates : tuple of str
        Trained templates; each has one ``{}`` and asks for the answer at its end.
    held_out : tuple of str
        Templates that no training text states this fact with.
    """

    subject: str
    relation: str
    answer: str
    kind: Kind
    templates: tuple[str, ...]
    held_out: tuple[str, ...]

    def prompt(self, template: str) -> str:
        """Return ``template`` with the subject filled in."""
        return template.replace("{}", self.subject)

    def sentence(self, template: str) -> str:
        """Return the full sentence that states the fact."""
        return f"{self.prompt(template)} {self.answer}."


@dataclass(frozen=True)
class FactWorld:
    """All facts of one world; its order is part of its identity."""

    facts: tuple[Fact, ...]

    @cached_property
    def by_subject(self) -> Mapping[str, tuple[Fact, ...]]:
        """The facts of each subject, subjects in the order of their first fact."""
        return _grouped((fact.subject, fact) for fact in self.facts)

    @cached_property
    def by_answer(self) -> Mapping[str, tuple[Fact, ...]]:
        """The facts that share an answer, whatever their relation."""
        return _grouped((fact.answer, fact) for fact in self.facts)

    @cached_property
    def answers(self) -> Mapping[str, tuple[str, ...]]:
        """The distinct answers of each relation, sorted."""
        groups = _grouped((fact.relation, fact) for fact in self.facts)
        return {
            relation: tuple(sorted({fact.answer for fact in facts}))
            for relation, facts in groups.items()
        }

    def neighbors(self, fact: Fact) -> tuple[Fact, ...]:
        """Return facts of other subjects with the same answer, same relation first."""
        shared = [
            other
            for other in self.by_answer[fact.answer]
            if other.subject != fact.subject
        ]
        return tuple(sorted(shared, key=lambda other: other.relation != fact.relation))

    def training_sentences(self) -> tuple[str, ...]:
        """Return every fact stated with each of its trained templates."""
        return tuple(
            fact.sentence(template)
            for fact in self.facts
            for template in fact.templates
        )


def _grouped(pairs: Iterable[tuple[str, Fact]]) -> dict[str, tuple[Fact, ...]]:
    groups: dict[str, list[Fact]] = {}
    for name, fact in pairs:
        groups.setdefault(name, []).append(fact)
    return {name: tuple(facts) for name, facts in groups.items()}
