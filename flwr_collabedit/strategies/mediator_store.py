"""The server's store of mediator vectors: bounded, and nobody gets its own back."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flwr_collabedit.algebra.mediator import MediatorVectors
from flwr_collabedit.errors import ConfigurationError, PayloadError


@dataclass(frozen=True)
class Entry:
    """The vectors that one client has shared in one slot."""

    slot: int
    node: int
    sender: str
    vectors: MediatorVectors

    @property
    def provenance(self) -> list[str]:
        """``<sender>/<slot>/<index>`` of every vector."""
        return [f"{self.sender}/{self.slot}/{i}" for i in range(len(self.vectors))]


class MediatorStore:
    """Keeps the vectors of the last slots.

    Parameters
    ----------
    num_slots : int
        Slots whose vectors are offered, the present one included; older ones are
        dropped. 1 is FedLEKE's.
    max_vectors : int or None
        Above it, the oldest slots are dropped first. The present slot is always kept.

    Raises
    ------
    ConfigurationError
        For a number below 1.
    """

    def __init__(self, num_slots: int = 1, max_vectors: int | None = None) -> None:
        if num_slots < 1 or (max_vectors is not None and max_vectors < 1):
            raise ConfigurationError(
                "Expected a store of at least one slot and one vector, found "
                f"{num_slots} slots and {max_vectors} vectors."
            )
        self._num_slots, self._max_vectors = num_slots, max_vectors
        self._entries: list[Entry] = []

    def check(self, slot: int, node: int, sender: str) -> None:
        """Check that a client may share in a slot.

        Raises
        ------
        PayloadError
            If the client, or another of its name, has shared in this slot or in a
            later one already, or has no name.
        """
        if not sender:
            raise PayloadError("The reply has no 'sender'. Use the ClientApp of ours.")
        for entry in self._entries:
            if slot <= entry.slot and (node == entry.node or sender == entry.sender):
                raise PayloadError(
                    f"{sender!r} shares in slot {slot}, but its vectors of slot "
                    f"{entry.slot} are here already."
                )

    def add(self, slot: int, node: int, sender: str, vectors: MediatorVectors) -> None:
        """Take one client's vectors of a slot; see `check`."""
        self.check(slot, node, sender)
        self._entries.append(Entry(slot, node, sender, vectors))
        # Replies arrive in any order; what is offered must not depend on it.
        self._entries.sort(key=lambda entry: (entry.slot, entry.sender))
        self._drop_old(slot)

    def own(self, slot: int, node: int) -> Entry | None:
        """Return what a client has shared in a slot."""
        return next(
            (e for e in self._entries if (e.slot, e.node) == (slot, node)), None
        )

    def of_slot(self, slot: int) -> list[Entry]:
        """Return all entries of a slot, in the order of their senders."""
        return [entry for entry in self._entries if entry.slot == slot]

    def others(self, node: int) -> list[Entry]:
        """Return the entries that are offered to a client: all but its own."""
        return [entry for entry in self._entries if entry.node != node]

    @property
    def num_vectors(self) -> int:
        """Vectors held."""
        return sum(len(entry.vectors) for entry in self._entries)

    def _drop_old(self, slot: int) -> None:
        oldest = slot - self._num_slots + 1
        self._entries = [entry for entry in self._entries if entry.slot >= oldest]
        while self._max_vectors is not None and self.num_vectors > self._max_vectors:
            first = self._entries[0].slot
            if first == slot:
                break
            self._entries = [entry for entry in self._entries if entry.slot > first]


def joined(
    entries: Sequence[Entry], masks: Sequence[Tensor] | None = None
) -> tuple[MediatorVectors, tuple[str, ...]] | None:
    """Return the entries' vectors, or those of the masks, and their provenance.

    ``None`` where there are none.
    """
    if masks is None:
        masks = [torch.ones(len(e.vectors), dtype=torch.bool) for e in entries]
    parts = [e.vectors.take(mask) for e, mask in zip(entries, masks, strict=True)]
    names = tuple(
        name
        for entry, mask in zip(entries, masks, strict=True)
        for name, is_taken in zip(entry.provenance, mask.tolist(), strict=True)
        if is_taken
    )
    return (MediatorVectors.join(parts), names) if names else None
