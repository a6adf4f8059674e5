"""All that a server knows between rounds, as one value that can be kept or undone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from torch import Tensor

from flwr_collabedit.algebra.history import EditHistory
from flwr_collabedit.algebra.ledger import Ledger
from flwr_collabedit.conflict_resolution import Entry
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.strategies.size_bound import SizeBound


@dataclass(frozen=True)
class ServerState:
    """The state after some rounds; a round replaces it, or leaves it as it was.

    Attributes
    ----------
    deltas : mapping of str to Tensor
        Cumulative deltas ``(d_value, d_key)``, float64, by parameter.
    history : EditHistory
        Running sums of earlier rounds.
    ledger : Ledger
        What each client contributed.
    took_part : mapping of str to tuple of int
        Rounds in which each client's edits were accepted, by its name.
    inactive : mapping of str to EditSet
        Edits that were left out or withdrawn, by client.
    left_out : mapping of str to EditSet
        Those of them that were never written.
    augmented : mapping of str to EditSet
        Edits that were written with their augmentations.
    tagged : tuple of Entry
        Keyed tags of the edits that count, for conflicts with later ones.
    bound : SizeBound
        How large clients' replies have been.
    """

    deltas: Mapping[str, Tensor] = field(default_factory=dict)
    history: EditHistory = field(default_factory=EditHistory)
    ledger: Ledger = field(default_factory=Ledger)
    took_part: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    inactive: Mapping[str, EditSet] = field(default_factory=dict)
    left_out: Mapping[str, EditSet] = field(default_factory=dict)
    augmented: Mapping[str, EditSet] = field(default_factory=dict)
    tagged: tuple[Entry, ...] = ()
    bound: SizeBound = field(default_factory=SizeBound)

    def with_participants(self, names: Sequence[str], server_round: int) -> Self:
        """Return the state in which these clients took part in a round."""
        rounds = {name: (*self.took_part.get(name, ()), server_round) for name in names}
        return replace(self, took_part={**self.took_part, **rounds})

    def without_edits(self, client: str, edits: EditSet) -> Self:
        """Return the state in which some of a client's edits do not count."""
        if not edits:
            return self
        both = self.inactive.get(client, EditSet()) | edits
        tagged = tuple(
            entry
            for entry in self.tagged
            if entry.client != client or (entry.round, entry.index) not in edits
        )
        inactive = {**self.inactive, client: both}
        return replace(self, inactive=inactive, tagged=tagged)

    def without_round(self, clients: Sequence[str], server_round: int) -> Self:
        """Return the state in which a round was never written, for these clients."""
        state, gone = self, EditSet.of({server_round: None})
        left_out = dict(self.left_out)
        for client in sorted(clients):
            state = state.without_edits(client, gone)
            left_out[client] = left_out.get(client, EditSet()) | gone
        return replace(state, left_out=left_out)
