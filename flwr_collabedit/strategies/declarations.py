"""Before a round's edits: who repeats or contradicts whom, and what is taken back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from flwr_collabedit.conflict_resolution import Entry, Resolution, find_groups
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.messages.declaration import Declaration
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.messages.instruction import Presence
from flwr_collabedit.strategies.server_state import ServerState


@dataclass(frozen=True, kw_only=True)
class DeclarationRules:
    """What clients declare before they edit, and what follows from it.

    Attributes
    ----------
    resolution : Resolution or None
        Clients send keyed tags of their facts, for which all need the same key, and
        this decides between edits of one fact. ``None``: no tags.
    presence : {"", "answer", "residual"}
        How clients find edits that the model has already: by its answer, which costs
        no gradient step, or by the residual of the optimised target.
    present_from : float
        An edit counts as present from this presence on. By ``answer`` it is 0 or 1. By
        ``residual`` it is 1 minus what is left to write: with ``d4s`` of the way from
        the base model's value to the target, otherwise of the farthest that a target
        may be from the current value, see `flwr_collabedit.editors.residuals`.
    skip_present : bool
        Whether present edits are left out; otherwise they are counted only.
    augment : bool
        Whether edits of this round that win a conflict are written with their
        paraphrases and related facts.
    take_back : bool
        Whether clients may withdraw edits of earlier rounds.

    Raises
    ------
    ConfigurationError
        If ``present_from`` is out of range or ``skip_present`` has nothing to go by.
    """

    resolution: Resolution | None = None
    presence: Presence = ""
    present_from: float = 0.8
    skip_present: bool = False
    augment: bool = False
    take_back: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.present_from <= 1:
            raise ConfigurationError(
                f"Expected present_from above 0 and at most 1, found "
                f"{self.present_from}."
            )
        if self.skip_present and not self.presence:
            raise ConfigurationError(
                "skip_present needs a presence to go by: 'answer' or 'residual'."
            )
        if self.augment and (
            self.resolution is None or self.resolution.policy == "report"
        ):
            raise ConfigurationError(
                "augment strengthens the winners of conflicts; found no resolution "
                "that has any. Give one with another policy than 'report'."
            )


@dataclass(frozen=True)
class Decisions:
    """What follows from the declarations of a round.

    Attributes
    ----------
    left_out, taken_back, withdrawn : mapping of str to EditSet
        By client: edits of this round that it is not to write, and edits of earlier
        rounds that are to be taken out, because it wishes so or has lost a conflict.
    augmented : mapping of str to EditSet
        By client, edits of this round that have won a conflict.
    tagged : tuple of Entry
        The edits that count now, for later rounds.
    counts : mapping of str to int
        ``conflicts`` and ``overlaps``: facts with several targets, and with several
        edits of one target; ``present``: edits that the model has already;
        ``left-out``: edits.
    """

    left_out: Mapping[str, EditSet] = field(default_factory=dict)
    taken_back: Mapping[str, EditSet] = field(default_factory=dict)
    withdrawn: Mapping[str, EditSet] = field(default_factory=dict)
    augmented: Mapping[str, EditSet] = field(default_factory=dict)
    tagged: tuple[Entry, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)


def decide(
    rules: DeclarationRules,
    state: ServerState,
    declared: Mapping[str, Declaration],
    server_round: int,
) -> Decisions:
    """Return what the declarations of a round lead to.

    All clients of a round come at the same time, whenever their messages arrive: within
    it their order is that of their names, so that a repeated run decides the same.

    Parameters
    ----------
    rules : DeclarationRules
        What to do.
    state : ServerState
        Before the round.
    declared : mapping of str to Declaration
        By client.
    server_round : int
        The round.
    """
    left_out: dict[str, set[int]] = {name: set() for name in declared}
    taken_back = {n: e for n, d in declared.items() if (e := d.withdrawals)}
    withdrawn: dict[str, EditSet] = {}
    counts = {"present": 0}
    for name, found in declared.items():
        present = {
            place
            for place, share in enumerate(found.presence)
            if share >= rules.present_from
        }
        counts["present"] += len(present)
        if rules.skip_present:
            left_out[name] |= present
    tagged: tuple[Entry, ...] = ()
    winners: dict[str, EditSet] = {}
    if rules.resolution is not None:
        earlier = [
            entry
            for entry in state.tagged
            if (entry.round, entry.index) not in taken_back.get(entry.client, EditSet())
        ]
        entries = [*earlier, *_entries(declared, left_out, server_round)]
        groups = find_groups(entries)
        counts["conflicts"] = sum(group.is_conflict for group in groups)
        counts["overlaps"] = sum(group.is_overlap for group in groups)
        kept = []
        for decision in rules.resolution.decide(entries, server_round):
            entry = decision.entry
            if decision.action == "keep":
                kept.append(entry)
            elif decision.action == "leave-out":
                left_out[entry.client].add(entry.index)
            else:
                one = EditSet.of({entry.round: [entry.index]})
                withdrawn[entry.client] = withdrawn.get(entry.client, EditSet()) | one
        tagged = tuple(kept)
        contested = {group.fact for group in groups if group.is_conflict}
        for entry in kept if rules.augment else ():
            if entry.fact in contested and entry.round == server_round:
                one = EditSet.of({entry.round: [entry.index]})
                winners[entry.client] = winners.get(entry.client, EditSet()) | one
    return Decisions(
        left_out={
            name: EditSet.of({server_round: sorted(places)})
            for name, places in left_out.items()
        },
        taken_back=taken_back,
        withdrawn=withdrawn,
        augmented=winners,
        tagged=tagged,
        counts={**counts, "left-out": sum(map(len, left_out.values()))},
    )


def with_decisions(state: ServerState, decisions: Decisions) -> ServerState:
    """Return the state in which left out edits do not count and tags are kept."""
    left_out = dict(state.left_out)
    for name, edits in sorted(decisions.left_out.items()):
        state = state.without_edits(name, edits)
        left_out[name] = left_out.get(name, EditSet()) | edits
    augmented = dict(state.augmented)
    for name, edits in sorted(decisions.augmented.items()):
        augmented[name] = augmented.get(name, EditSet()) | edits
    return replace(
        state,
        left_out={name: edits for name, edits in left_out.items() if edits},
        augmented=augmented,
        tagged=decisions.tagged,
    )


def _entries(
    declared: Mapping[str, Declaration],
    left_out: Mapping[str, set[int]],
    server_round: int,
) -> Sequence[Entry]:
    return [
        Entry(name, server_round, arrival, place, fact, target)
        for arrival, (name, found) in enumerate(sorted(declared.items()))
        for place, (fact, target) in enumerate(
            zip(found.fact_tags, found.target_tags, strict=True)
        )
        if place not in left_out[name]
    ]
