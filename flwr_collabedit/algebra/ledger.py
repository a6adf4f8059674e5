"""Who contributed what: sealed factors by client and round, to be taken out again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.factors import SealedFactors


@dataclass(frozen=True, eq=False)
class LedgerEntry:
    """What one client added in one round, or took back.

    Attributes
    ----------
    client : str
        Its name.
    server_round : int
        When; counts from 1.
    factors : mapping of str to SealedFactors
        By parameter.
    is_withdrawal : bool
        Whether it was subtracted.
    """

    client: str
    server_round: int
    factors: Mapping[str, SealedFactors]
    is_withdrawal: bool = False

    @property
    def num_edits(self) -> int:
        """How many edits it stands for, negative if they were taken back."""
        count = next(iter(self.factors.values())).num_edits
        return -count if self.is_withdrawal else count


@dataclass(frozen=True)
class Ledger:
    """Entries in the order in which they were made.

    Adding and removing return a new ledger, so that a round can be undone as a whole.
    Memory: ``(d_key + d_value) * rank`` numbers an entry and layer.
    """

    entries: tuple[LedgerEntry, ...] = ()

    def plus(self, entry: LedgerEntry) -> Self:
        """Return the ledger with another entry."""
        return type(self)((*self.entries, entry))

    def of(
        self, *, client: str | None = None, server_round: int | None = None
    ) -> tuple[LedgerEntry, ...]:
        """Return the entries of a client, of a round, or of both."""
        return tuple(
            entry
            for entry in self.entries
            if client in (None, entry.client)
            and server_round in (None, entry.server_round)
        )

    def without(self, entries: tuple[LedgerEntry, ...]) -> Self:
        """Return the ledger without some of its entries."""
        gone = set(map(id, entries))
        return type(self)(tuple(e for e in self.entries if id(e) not in gone))

    def num_edits(self, client: str) -> int:
        """Return how many edits of a client are in force."""
        return sum(entry.num_edits for entry in self.of(client=client))


def signed_statistics(entry: LedgerEntry) -> dict[str, EditStatistics]:
    """Return what an entry added to each parameter's sums: minus, if it took back."""
    found = {name: factors.statistics() for name, factors in entry.factors.items()}
    if not entry.is_withdrawal:
        return found
    return {
        name: EditStatistics.zero(s.d_value, s.d_key) - s for name, s in found.items()
    }
