"""Taking edits back: the sums without them, or the reason why that cannot be."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self

from flwr_collabedit.algebra.factors import SealedFactors
from flwr_collabedit.algebra.ledger import LedgerEntry, signed_statistics
from flwr_collabedit.algebra.matrices import is_semidefinite
from flwr_collabedit.errors import ConfigurationError, WithdrawalError, shorten
from flwr_collabedit.messages.contributions import Contribution, as_statistics
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.strategies.server_state import ServerState

_FORM = "'client:NAME@ROUND' or 'round:NUMBER@ROUND'"


@dataclass(frozen=True)
class Withdrawal:
    """What the server is to take back, and when.

    Attributes
    ----------
    kind : {"client", "round"}
        All that one client has contributed, or what all have in one round.
    what : str
        The client's name or the round's number.
    at_round : int
        The round before whose edits it is taken back.

    Examples
    --------
    >>> Withdrawal.parse("client:client-2@5")
    Withdrawal(kind='client', what='client-2', at_round=5)
    """

    kind: Literal["client", "round"]
    what: str
    at_round: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``client:NAME@ROUND`` or ``round:NUMBER@ROUND``.

        Raises
        ------
        ConfigurationError
            If it is neither, or the round that is taken back is not an earlier one.
        """
        head, _, when = text.strip().rpartition("@")
        kind, _, what = head.partition(":")
        is_known = kind in ("client", "round") and what and when.isdecimal()
        if not is_known or (kind == "round" and not what.isdecimal()):
            raise ConfigurationError(
                f"Expected a withdrawal such as {_FORM}, found {text!r}."
            )
        if kind == "round" and not 0 < int(what) < int(when):
            raise ConfigurationError(
                f"Expected the withdrawal of a round before round {when}, found "
                f"{text!r}."
            )
        return cls(kind, what, int(when))  # type: ignore[arg-type]  # checked above

    def rounds_by_client(self, state: ServerState) -> dict[str, tuple[int, ...]]:
        """Return of which rounds each client's edits are to be taken back.

        Raises
        ------
        WithdrawalError
            If nothing of it is in force.
        """
        found = {}
        for client, rounds in state.took_part.items():
            whole = {
                r
                for r, places in state.inactive.get(client, EditSet()).rounds.items()
                if places is None
            }
            if self.kind == "client":
                chosen = tuple(rounds) if client == self.what else ()
            else:
                chosen = tuple(r for r in rounds if r == int(self.what))
            if left := tuple(r for r in chosen if r not in whole):
                found[client] = left
        if not found:
            raise WithdrawalError(
                f"Nothing of {self.kind} {self.what!r} is in force, so that it cannot "
                f"be withdrawn. Took part so far: {shorten(sorted(state.took_part))}."
            )
        return found


def without_ledger_entries(
    state: ServerState, client: str, rounds: tuple[int, ...]
) -> ServerState:
    """Return the state without a client's edits of some rounds, from the ledger."""
    entries = tuple(
        entry
        for server_round in rounds
        for entry in state.ledger.of(client=client, server_round=server_round)
    )
    history = state.history
    for entry in entries:
        history = history.minus(signed_statistics(entry))
    state = replace(state, history=history, ledger=state.ledger.without(entries))
    return state.without_edits(client, EditSet.of(dict.fromkeys(rounds)))


def without_contribution(
    state: ServerState,
    client: str,
    edits: EditSet,
    found: Mapping[str, Contribution],
) -> ServerState:
    """Return the state without edits of one round whose statistics the client sent.

    Parameters
    ----------
    state : ServerState
        With the edits in.
    client : str
        Its name.
    edits : EditSet
        Which of its edits these are.
    found : mapping of str to EditStatistics or SealedFactors
        Their statistics by parameter.

    Raises
    ------
    WithdrawalError
        If these are fewer edits than were named, or the sums without them are
        no sums of edits: they were never added.
    """
    ((server_round, places),) = edits.rounds.items()
    num_edits = next(iter(found.values())).num_edits
    if places is not None and num_edits < len(places):
        raise WithdrawalError(
            f"Client {client!r} takes back {len(places)} edits of round "
            f"{server_round}, and has {num_edits} of them. Name edits that it added."
        )
    totals = {name: as_statistics(one) for name, one in found.items()}
    history = state.history.minus(totals)
    for name, left in history.sums.items():
        if left.num_edits < 0 or not is_semidefinite(left.gram.total):
            raise WithdrawalError(
                f"What client {client!r} takes back was never added to {name!r}: "
                f"without it {left.num_edits} edits are left, and their keys' gram "
                "matrix is not positive semidefinite."
            )
    factors = {n: one for n, one in found.items() if isinstance(one, SealedFactors)}
    ledger = state.ledger
    if factors:
        ledger = ledger.plus(LedgerEntry(client, server_round, factors, True))
    state = replace(state, history=history, ledger=ledger)
    return state.without_edits(client, edits)
