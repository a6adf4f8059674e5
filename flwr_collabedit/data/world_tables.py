"""The tables behind the embedded model's world: relations, pools and real facts."""

import csv
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable


@dataclass(frozen=True)
class Statement:
    """A fact before it is put into words: subject, relation and answer."""

    subject: str
    relation: str
    answer: str


@dataclass(frozen=True)
class WorldTables:
    """What the files in ``assets/world`` say.

    Attributes
    ----------
    templates : dict of str to tuple of str
        Six templates for each relation; the first is the plainest.
    pools : dict of str to tuple of str
        The possible answers for each relation, sorted.
    invented : dict of str to tuple of str
        The relations of an invented "person" and "organisation".
    statements : tuple of Statement
        The real facts.
    """

    templates: dict[str, tuple[str, ...]]
    pools: dict[str, tuple[str, ...]]
    invented: dict[str, tuple[str, ...]]
    statements: tuple[Statement, ...]


def read_world_tables() -> WorldTables:
    """Return the tables that ship with this package."""
    folder = files("flwr_collabedit") / "assets" / "world"
    document = tomllib.loads((folder / "relations.toml").read_text("utf-8"))
    relations = document["relations"]
    tables = {name: _statements(folder / f"{name}.csv") for name in document["tables"]}
    statements = tuple(item for table in tables.values() for item in table)
    members = {name: set(answers) for name, answers in document["pools"].items()}
    members["company"] = {item.subject for item in tables["companies"]}
    for item in statements:
        members.setdefault(relations[item.relation]["pool"], set()).add(item.answer)
    return WorldTables(
        templates={name: tuple(row["templates"]) for name, row in relations.items()},
        pools={
            name: tuple(sorted(members[row["pool"]])) for name, row in relations.items()
        },
        invented={
            kind: tuple(row["relations"]) for kind, row in document["invented"].items()
        },
        statements=statements,
    )


def _statements(table: Traversable) -> list[Statement]:
    """Return one statement for every filled cell; the header names the relations."""
    with table.open("r", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    return [
        Statement(row["subject"], relation, answer)
        for row in rows
        for relation, answer in row.items()
        if relation != "subject" and answer
    ]
