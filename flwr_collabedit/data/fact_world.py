"""The world that the embedded model knows: real facts and invented ones.

Several hundred subjects are real (countries, cities, elements, companies, landmarks,
people), so that an edit can be judged by eye; the rest is invented, so that its number
can grow. Everything is deterministic.
"""

import random
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Literal

from flwr_collabedit.data.case_draw import CaseDraw
from flwr_collabedit.data.facts import Fact, FactWorld, Kind
from flwr_collabedit.data.invented_facts import invented_statements
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.data.training_split import EMBEDDED_SHARE, is_held_out
from flwr_collabedit.data.world_tables import Statement, read_world_tables
from flwr_collabedit.errors import ConfigurationError, nearest

Subjects = Literal["real", "invented", "all", "held-out"]

NUM_PERSONS, NUM_ORGANISATIONS = 1200, 600
_NUM_HELD_OUT = 2


def build_world(num_persons: int, num_organisations: int, seed: int = 0) -> FactWorld:
    """Return the real facts and those of the invented subjects.

    Parameters
    ----------
    num_persons, num_organisations : int
        Invented subjects, at most 6,000 of each. The embedded model knows those
        of :func:`default_world` only.
    seed : int
        Decides the invented facts and which templates are held out of which fact.
    """
    tables = read_world_tables()
    rng = random.Random(seed)
    kinds: dict[Kind, Sequence[Statement]] = {
        "real": tables.statements,
        "invented": invented_statements(tables, num_persons, num_organisations, seed),
    }
    facts = []
    for kind, statements in kinds.items():
        for item in statements:
            first, *others = tables.templates[item.relation]
            rng.shuffle(others)
            trained = (first, *others[_NUM_HELD_OUT:])
            held_out = tuple(others[:_NUM_HELD_OUT])
            facts.append(
                Fact(item.subject, item.relation, item.answer, kind, trained, held_out)
            )
    return FactWorld(tuple(facts))


@cache
def default_world() -> FactWorld:
    """Return the world that the embedded model was trained on."""
    return build_world(NUM_PERSONS, NUM_ORGANISATIONS)


def embedded_corpus(seed: int = 0) -> Iterator[str]:
    """Yield the default world's training text in rows of one and of three sentences.

    Every trained sentence comes once; a quarter of the rows holds three sentences.
    Held-out statements never come.
    """
    rng = random.Random(seed)
    sentences = list(default_world().training_sentences())
    rng.shuffle(sentences)
    remaining = iter(sentences)
    while row := list(islice(remaining, 3 if rng.random() < 1 / 4 else 1)):
        yield " ".join(row)


def embedded_cases(
    num_edits: int,
    *,
    subjects: Subjects = "real",
    relation: str | None = None,
    seed: int = 0,
) -> list[EvaluationCase]:
    """Return edits of the default world, one per subject, and how they are scored.

    A country's edit is about its capital, unless ``relation`` says otherwise; other
    subjects draw one of their facts. The first edit is about a capital if any is.

    Parameters
    ----------
    num_edits : int
        At least 1 and at most the number of subjects that qualify. One edit per
        subject, because two edits of one subject share a key and contradict.
    subjects : {"real", "invented", "all", "held-out"}
        Which subjects qualify; ``held-out`` for those, real and invented, that no
        hypernetwork is trained on (`flwr_collabedit.data.training_world`).
    relation : str or None
        Edit only this relation, for example "capital".
    seed : int
        Decides subjects, facts and new targets.

    Returns
    -------
    list of EvaluationCase
        The new target is another answer of the same relation. The neighborhood is up
        to eight prompts about facts that are not edited and have the same true
        answer, about subjects that are not edited where possible.

    Raises
    ------
    ConfigurationError
        If the relation is unknown or fewer subjects qualify than edits are asked for.
    """
    world = default_world()
    rng = random.Random(seed)
    candidates = _candidates(world, subjects, relation)
    if not 1 <= num_edits <= len(candidates):
        raise ConfigurationError(
            f"Expected 1 to {len(candidates)} edits, found {num_edits}: that many "
            f"subjects qualify for subjects={subjects!r}, relation={relation!r}. "
            "Ask for fewer edits or for subjects='all'."
        )
    edited = [
        _drawn(candidates[subject], rng)
        for subject in rng.sample(sorted(candidates), num_edits)
    ]
    edited.sort(key=lambda fact: fact.relation != "capital")
    first, rest = edited[0], edited[1:]
    rng.shuffle(rest)
    draw = CaseDraw(world, [first, *rest], rng)
    return [draw.case(number) for number in range(num_edits)]


def _candidates(
    world: FactWorld, subjects: Subjects, relation: str | None
) -> dict[str, list[Fact]]:
    """Return the facts that may be edited, by subject."""
    if relation is not None and relation not in world.answers:
        raise ConfigurationError(
            f"Expected a relation of the embedded world, found {relation!r}. "
            f"{nearest(relation, world.answers)}"
        )
    candidates = {
        subject: [
            fact
            for fact in facts
            if _qualifies(fact, subjects) and relation in (None, fact.relation)
        ]
        for subject, facts in world.by_subject.items()
    }
    return {subject: facts for subject, facts in candidates.items() if facts}


def _qualifies(fact: Fact, subjects: Subjects) -> bool:
    if subjects == "held-out":
        return is_held_out(fact.subject, EMBEDDED_SHARE)
    return subjects in ("all", fact.kind)


def _drawn(facts: list[Fact], rng: random.Random) -> Fact:
    capitals = [fact for fact in facts if fact.relation == "capital"]
    return rng.choice(capitals or facts)
