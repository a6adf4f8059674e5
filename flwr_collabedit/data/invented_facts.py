"""Invented persons and organisations, as many as a study needs."""

import random
from collections.abc import Sequence

from flwr_collabedit.data.world_tables import Statement, WorldTables

_CONSONANTS = (*"bdfghklmnprstvwz", "br", "dr", "gr", "kl", "st", "tr")
_VOWELS = (*"aeiou", "ai", "ei", "ou")
_ENDINGS = (*"nrslm", "th", "")
_NUM_FIRST, _NUM_LAST, _NUM_FOUNDERS = 60, 100, 60
_NUM_RELATIONS = 3


def invented_statements(
    tables: WorldTables, num_persons: int, num_organisations: int, seed: int
) -> list[Statement]:
    """Return three facts about each invented subject, answers spread evenly.

    Few facts a subject, as real ones have, leave the model room for many subjects: it
    is their number that fills the key space. A name is made of two words from fixed
    lists, so that more subjects need no new words. Answers are dealt like cards: no
    answer of a pool comes up for the third time before all have come up twice.
    """
    rng = random.Random(seed)
    words = _words(_NUM_FIRST + 2 * _NUM_LAST + _NUM_FOUNDERS, tables, rng)
    first, last, founders, partners = (
        [words.pop() for _ in range(count)]
        for count in (_NUM_FIRST, _NUM_LAST, _NUM_FOUNDERS, _NUM_LAST)
    )
    persons = [f"{a} {b}" for a in first for b in last]
    organisations = [f"{a} & {b}" for a in founders for b in partners]
    groups = {
        "person": rng.sample(persons, num_persons),
        "organisation": rng.sample(organisations, num_organisations),
    }
    return [
        statement
        for kind, subjects in groups.items()
        for relation, told in _shared_out(subjects, tables.invented[kind], rng).items()
        for statement in _dealt(told, relation, tables.pools[relation], rng)
    ]


def _shared_out(
    subjects: Sequence[str], relations: Sequence[str], rng: random.Random
) -> dict[str, list[str]]:
    """Return which subjects each relation is told of."""
    told: dict[str, list[str]] = {relation: [] for relation in relations}
    for subject in subjects:
        for relation in rng.sample(relations, _NUM_RELATIONS):
            told[relation].append(subject)
    return told


def _dealt(
    subjects: Sequence[str], relation: str, pool: Sequence[str], rng: random.Random
) -> list[Statement]:
    answers: list[str] = []
    while len(answers) < len(subjects):
        answers += rng.sample(pool, len(pool))
    return [
        Statement(subject, relation, answer)
        for subject, answer in zip(subjects, answers, strict=False)
    ]


def _words(count: int, tables: WorldTables, rng: random.Random) -> list[str]:
    """Return ``count`` pronounceable words that no real name or answer uses."""
    taken = {
        word
        for item in tables.statements
        for word in f"{item.subject} {item.answer}".split()
    }
    words: dict[str, None] = {}
    while len(words) < count:
        syllables = [rng.choice(_CONSONANTS) + rng.choice(_VOWELS) for _ in range(2)]
        word = ("".join(syllables) + rng.choice(_ENDINGS)).capitalize()
        if word not in taken:
            words[word] = None
    return list(words)
