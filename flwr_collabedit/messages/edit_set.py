"""Which of a client's edits: rounds and places within them, as they travel as text."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from flwr_collabedit.errors import PayloadError


@dataclass(frozen=True)
class EditSet:
    """A set of a client's edits.

    Attributes
    ----------
    rounds : mapping of int to (frozenset of int or None)
        By round, counted from 1, the places of the edits in the client's list of that
        round, counted from 0; ``None`` stands for all of them.

    Examples
    --------
    >>> few = EditSet.of({1: [0, 2]}) | EditSet.of({3: None})
    >>> (1, 2) in few, (1, 1) in few, (3, 7) in few
    (True, False, True)
    >>> EditSet.from_json(few.to_json()) == few
    True
    """

    rounds: Mapping[int, frozenset[int] | None] = field(default_factory=dict)

    @classmethod
    def of(cls, rounds: Mapping[int, "list[int] | None"]) -> Self:
        """Return the set of these places; rounds without any are left out."""
        found = {r: None if p is None else frozenset(p) for r, p in rounds.items()}
        return cls({r: p for r, p in sorted(found.items()) if p is None or p})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the set that `to_json` wrote; no text is the empty set.

        Raises
        ------
        PayloadError
            If the text is anything else.
        """
        try:
            content = json.loads(text or "{}")
            return cls.of({int(r): _places(p) for r, p in content.items()})
        except (ValueError, TypeError, AttributeError):
            raise PayloadError(
                f"Expected a set of edits such as '{{\"1\": [0, 2]}}', found {text!r}. "
                "Use the same flwr-collabedit on server and clients."
            ) from None

    def to_json(self) -> str:
        """Return the set as text, empty for the empty set."""
        if not self.rounds:
            return ""
        places = {r: None if p is None else sorted(p) for r, p in self.rounds.items()}
        return json.dumps(places)

    def of_round(self, server_round: int) -> Self:
        """Return the edits of one round."""
        kept = {r: p for r, p in self.rounds.items() if r == server_round}
        return type(self)(kept)

    def __len__(self) -> int:
        """Return the number of places, counting a whole round as one."""
        return sum(1 if p is None else len(p) for p in self.rounds.values())

    def __bool__(self) -> bool:
        return bool(self.rounds)

    def __contains__(self, edit: tuple[int, int]) -> bool:
        server_round, place = edit
        places = self.rounds.get(server_round, frozenset())
        return places is None or place in places

    def __or__(self, other: Self) -> Self:
        """Return the edits that are in one of the two or in both."""
        both: dict[int, list[int] | None] = {}
        for server_round in {**self.rounds, **other.rounds}:
            own = self.rounds.get(server_round, frozenset())
            others = other.rounds.get(server_round, frozenset())
            whole = own is None or others is None
            both[server_round] = (
                None if whole else sorted((own or set()) | (others or set()))
            )
        return self.of(both)


def _places(found: object) -> list[int] | None:
    """Return places as JSON has them, once it is known that they are."""
    if found is None:
        return None
    if isinstance(found, list) and all(type(p) is int and p >= 0 for p in found):
        return found
    raise TypeError(found)
