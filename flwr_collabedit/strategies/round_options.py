"""Options that every editing strategy has: who is waited for, asked and scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flwr_collabedit.errors import ConfigurationError, shorten
from flwr_collabedit.messages.instruction import WireDtype
from flwr_collabedit.messages.replies import ReplyLimits


@dataclass(frozen=True, kw_only=True)
class RoundOptions:
    """Options of a round that do not depend on how edits are merged.

    Attributes
    ----------
    wire_dtype : {"float32", "float64"}
        Of all arrays in messages, both ways.
    min_available_nodes : int
        Connected clients to wait for before each round, ``exchange_timeout_s`` at most.
        Then ``min_replies`` are enough; a client that was waited for in vain is not
        waited for again, but asked when it is back.
    min_replies : int or None
        Valid replies that each exchange needs; ``None`` asks for all that were asked.
    fraction_train : float
        Share of the connected clients, in (0, 1], that a round asks to edit, at least
        one. Who is left out keeps its edits of that round to itself: they are written
        in no later round. All clients are scored, on unwritten edits too.
    seed : int
        With the round's number it seeds who is asked.
    max_norm : float or None
        Bound on the Frobenius norm of each array in a reply.
    max_edits : int or None
        Bound on the edits that one reply may stand for.
    size_factor : float or None
        A reply may be so many times as large, an edit, as the median of the clients',
        see `flwr_collabedit.strategies.size_bound`; ``None`` takes any size. Under
        secure aggregation, where no single reply is seen, there is no such bound.
    exchange_timeout_s : float
        How long an exchange waits for replies, and a round for clients to connect.
    evaluate : bool
        Whether clients score their own cases after every round.
    evaluate_every : int or sequence of int
        With ``evaluate``, every so many rounds, or after just these; and after the
        last one.
    evaluate_before : bool
        Whether, with ``evaluate``, they also score them before the first round: the
        same figures for every strategy, so that a comparison needs them only once.
    checkpoint_folder : Path or None
        Where the server's state is written after every round. A run that finds a
        checkpoint of the same options there goes on with the round after it.
    keep_checkpoints : int
        How many of the newest are kept; 0 keeps all.

    Raises
    ------
    ConfigurationError
        For a value out of range.
    """

    wire_dtype: WireDtype = "float32"
    min_available_nodes: int = 2
    min_replies: int | None = None
    fraction_train: float = 1.0
    seed: int = 0
    max_norm: float | None = None
    max_edits: int | None = None
    size_factor: float | None = 8.0
    exchange_timeout_s: float = 3600.0
    evaluate: bool = True
    evaluate_every: int | Sequence[int] = 1
    evaluate_before: bool = True
    checkpoint_folder: Path | None = None
    keep_checkpoints: int = 1

    def __post_init__(self) -> None:
        replies = self.min_replies
        if self.min_available_nodes < 1 or (replies is not None and replies < 1):
            raise ConfigurationError(
                "Expected min_available_nodes and min_replies of at least 1, found "
                f"{self.min_available_nodes} and {self.min_replies}."
            )
        if not self.exchange_timeout_s > 0:
            raise ConfigurationError(
                f"Expected exchange_timeout_s above 0, found {self.exchange_timeout_s}."
            )
        if self.size_factor is not None and self.size_factor <= 1:
            raise ConfigurationError(
                f"Expected size_factor above 1 or None, found {self.size_factor}."
            )
        every = self.evaluate_every
        rounds = [every] if isinstance(every, int) else every
        if min(rounds, default=0) < 1:
            raise ConfigurationError(
                "Expected evaluate_every of at least 1, or a sequence of such rounds, "
                f"found {shorten(rounds) or 'none'}."
            )
        if not 0 < self.fraction_train <= 1:
            raise ConfigurationError(
                "Expected fraction_train above 0 and at most 1, found "
                f"{self.fraction_train}. 1 asks every client."
            )
        if self.keep_checkpoints < 0:
            raise ConfigurationError(
                "Expected keep_checkpoints of at least 0 (all), found "
                f"{self.keep_checkpoints}."
            )

    @property
    def limits(self) -> ReplyLimits:
        """What every reply is held to, whatever the others send."""
        return ReplyLimits(self.max_norm, self.max_edits)

    def is_evaluated(self, server_round: int, num_rounds: int) -> bool:
        """Return whether clients are scored after a round."""
        every = self.evaluate_every
        if isinstance(every, int):
            due = server_round % every == 0
        else:
            due = server_round in (0, *every)
        return self.evaluate and (due or server_round == num_rounds)
