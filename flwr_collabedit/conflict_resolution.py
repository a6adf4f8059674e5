"""Which edits overlap or contradict each other, and which of them stay.

Zheng et al. "CollabEdit: Towards Non-destructive Collaborative Knowledge Editing",
    ICLR 2025, section 4.2: overlap and conflict. The paper leaves the choice of the
    winner to "a predefined strategy"; those here are its first come first served, its
    mirror image, and two more.

Only tags are seen (`flwr_collabedit.fact_tags`), never a fact.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from flwr_collabedit.errors import ConfigurationError, PayloadError, nearest

Policy = Literal["report", "first-come", "last-come", "priority", "majority"]
Overlap = Literal["all", "once"]
Action = Literal["keep", "leave-out", "withdraw"]
Reason = Literal["", "conflict", "overlap"]


@dataclass(frozen=True)
class Entry:
    """One edit as the server sees it: whose, when, and two tags.

    Attributes
    ----------
    client : str
        Name of the client.
    round : int
        The round in which the edit was, or is to be, written.
    arrival : int
        Place of the client's tags among those of the round. Policies take the order
        ``(round, arrival, index)`` as the order in which edits came.
    index : int
        Place of the edit among the client's edits of the round.
    fact, target : str
        The two tags.
    """

    client: str
    round: int
    arrival: int
    index: int
    fact: str
    target: str

    @property
    def order(self) -> tuple[int, int, int]:
        """When the edit came; no two edits have the same."""
        return self.round, self.arrival, self.index


@dataclass(frozen=True)
class FactGroup:
    """All edits of one fact, at least two.

    Attributes
    ----------
    fact : str
        Its tag.
    entries : tuple of Entry
        In the order in which they came.
    """

    fact: str
    entries: tuple[Entry, ...]

    @property
    def by_target(self) -> dict[str, tuple[Entry, ...]]:
        """The edits of every target, targets in the order of their first edit."""
        targets = dict.fromkeys(entry.target for entry in self.entries)
        return {
            target: tuple(entry for entry in self.entries if entry.target == target)
            for target in targets
        }

    @property
    def is_conflict(self) -> bool:
        """Whether two of the edits have different targets."""
        return len(self.by_target) > 1

    @property
    def is_overlap(self) -> bool:
        """Whether two of the edits have the same target."""
        return len(self.by_target) < len(self.entries)


@dataclass(frozen=True)
class Decision:
    """What is to become of an edit.

    Attributes
    ----------
    entry : Entry
        The edit.
    action : {"keep", "leave-out", "withdraw"}
        ``leave-out`` for an edit of the present round, ``withdraw`` for one that an
        earlier round has written.
    reason : {"", "conflict", "overlap"}
        Why it is not kept: another target stays, or another edit of the same target.
    """

    entry: Entry
    action: Action = "keep"
    reason: Reason = ""


@dataclass(frozen=True)
class Resolution:
    """Who wins where clients contradict or repeat each other.

    Parameters
    ----------
    policy : {"report", "first-come", "last-come", "priority", "majority"}
        Which target of a fact stays. ``report``: all. ``first-come`` and ``last-come``:
        that of the edit which came first or last. ``priority``: that of the client
        which stands first in ``priority``; clients that are not in it come after all
        that are. ``majority``: the one that most clients want, a client that sends it
        twice counting once. Where ``priority`` or ``majority`` leave several, the one
        of them that came first.
    overlap : {"all", "once"}
        Whether all edits of the target that stays are kept or only the one that came
        first. With ``once`` the fact goes when that client withdraws its edit.
    priority : sequence of str
        Names of clients, the most important first. Read by ``priority`` only.

    Raises
    ------
    ConfigurationError
        If an option is unknown, ``priority`` names a client twice, names none for that
        policy, or some for another.
    """

    policy: Policy = "report"
    overlap: Overlap = "all"
    priority: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, found, known in (
            ("conflict policy", self.policy, get_args(Policy)),
            ("overlap", self.overlap, get_args(Overlap)),
        ):
            if found not in known:
                raise ConfigurationError(
                    f"unknown {name} {found!r}. {nearest(found, known)}"
                )
        if bool(self.priority) != (self.policy == "priority"):
            raise ConfigurationError(
                "expected names of clients for the conflict policy 'priority' and for "
                f"no other, found {list(self.priority)} for {self.policy!r}"
            )
        if len(set(self.priority)) < len(self.priority):
            raise ConfigurationError(
                "expected every client once in the order of priority, found "
                f"{list(self.priority)}"
            )

    def decide(self, entries: Iterable[Entry], current_round: int) -> list[Decision]:
        """Return what is to become of every edit, in the order in which they came.

        Parameters
        ----------
        entries : iterable of Entry
            In any order: the edits of the present round and those of earlier ones that
            are still in the model. Edits that were left out or withdrawn have no say.
        current_round : int
            Edits of rounds below it are withdrawn, all others left out.

        Raises
        ------
        PayloadError
            If two entries have the same place.
        """
        ordered = _in_order(entries)
        losers: dict[Entry, Reason] = {}
        for group in find_groups(ordered):
            targets = group.by_target
            kept = set(targets)
            if self.policy != "report":
                kept = {self._winner(group)}
            for target, members in targets.items():
                if target not in kept:
                    losers.update(dict.fromkeys(members, "conflict"))
                elif self.overlap == "once":
                    losers.update(dict.fromkeys(members[1:], "overlap"))
        return [
            Decision(entry, _action(entry, current_round), losers[entry])
            if entry in losers
            else Decision(entry)
            for entry in ordered
        ]

    def _winner(self, group: FactGroup) -> str:
        """Return the target that stays; of equals, the one that came first."""
        if self.policy == "first-come":
            return group.entries[0].target
        if self.policy == "last-come":
            return group.entries[-1].target
        if self.policy == "priority":
            return min(group.entries, key=self._rank).target
        targets = group.by_target
        return max(
            targets, key=lambda name: len({entry.client for entry in targets[name]})
        )

    def _rank(self, entry: Entry) -> int:
        if entry.client in self.priority:
            return self.priority.index(entry.client)
        return len(self.priority)


def find_groups(entries: Iterable[Entry]) -> list[FactGroup]:
    """Return the facts that several edits are about, in the order of their first edit.

    Raises
    ------
    PayloadError
        If two entries have the same place.
    """
    members: dict[str, list[Entry]] = defaultdict(list)
    for entry in _in_order(entries):
        members[entry.fact].append(entry)
    return [
        FactGroup(fact, tuple(same)) for fact, same in members.items() if len(same) > 1
    ]


def _in_order(entries: Iterable[Entry]) -> Sequence[Entry]:
    ordered = sorted(entries, key=lambda entry: entry.order)
    for one, other in pairwise(ordered):
        if one.order == other.order:
            raise PayloadError(
                "expected every edit at a place of its own, found two at (round, "
                f"arrival, index) {one.order}, of the clients {one.client!r} and "
                f"{other.client!r}; count arrivals anew in every round"
            )
    return ordered


def _action(entry: Entry, current_round: int) -> Action:
    return "withdraw" if entry.round < current_round else "leave-out"
