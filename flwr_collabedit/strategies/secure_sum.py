"""Clients' edit statistics summed by secure aggregation, checked as far as can be."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flwr.app import ArrayRecord, Message
from flwr.common import FitRes
from flwr.serverapp import Grid
from flwr.serverapp.exception import AggregationError

from flwr_collabedit.algebra.fixed_point import key_exponents, largest_limb_bits
from flwr_collabedit.algebra.priors import Priors
from flwr_collabedit.algebra.running_sum import StatisticsSum
from flwr_collabedit.errors import ConfigurationError, PayloadError
from flwr_collabedit.messages.instruction import Form, Instruction
from flwr_collabedit.messages.legacy_records import reply_content
from flwr_collabedit.messages.payloads import (
    ARRAYS,
    num_edits_of,
    record_bytes,
    sender_of,
)
from flwr_collabedit.messages.replies import (
    ReplyLimits,
    check_same_count,
    checked_records,
)
from flwr_collabedit.messages.secure_payload import SecureTask, unpack_sum
from flwr_collabedit.strategies.messenger import Messenger
from flwr_collabedit.strategies.round_options import RoundOptions
from flwr_collabedit.strategies.round_report import ReplyFigures, RoundReport
from flwr_collabedit.strategies.secure_exchange import run_secure_exchange
from flwr_collabedit.strategies.server_state import ServerState

_NO_COUNT = -1


@dataclass(frozen=True, kw_only=True)
class SecureAggregation:
    """Options of CollabEdit's sum through SecAgg+, see ``docs/secure_aggregation.md``.

    Attributes
    ----------
    num_limbs : int
        Integers that each number becomes; 8 bytes each. 3 keep some 87 bits below the
        largest number that fits (4 clients; fewer for more clients), 2 some 58.
    gram_exponent, cross_exponent : int
        Room for large entries, in powers of two: an entry of ``K K^T`` may be up to
        ``2^gram_exponent`` times ``sqrt(C_ii C_jj)``, one of ``R K^T`` up to
        ``2^cross_exponent`` times ``sqrt(C_jj)``. A client with a larger one refuses.
    threshold : float
        Share of the clients asked that must stay, for the masks of those that drop out
        to be removed, and that would have to collude with the server to see a reply.

    Raises
    ------
    ConfigurationError
        For a value out of range.
    """

    num_limbs: int = 3
    gram_exponent: int = 10
    cross_exponent: int = 10
    threshold: float = 2 / 3

    def __post_init__(self) -> None:
        if self.num_limbs < 1 or not 0.5 < self.threshold <= 1:
            raise ConfigurationError(
                "Expected num_limbs of at least 1, threshold above 0.5 and at most 1, "
                f"found {self.num_limbs} and {self.threshold}."
            )

    def check(self, form: Form, options: RoundOptions, takes_out: bool) -> None:
        """Check that a strategy's other options go with a sum of all clients.

        Parameters
        ----------
        form, options
            Of the strategy.
        takes_out : bool
            Whether it may subtract edits again.

        Raises
        ------
        ConfigurationError
            If they do not.
        """
        if form != "dense":
            raise ConfigurationError(
                f"Expected form 'dense' for secure aggregation, found {form!r}, of "
                "which there is no sum. Set form to 'dense'."
            )
        if options.max_norm is not None:
            raise ConfigurationError(
                "With secure aggregation the server cannot see how large a reply is. "
                "Leave max_norm out."
            )
        if takes_out:
            raise ConfigurationError(
                "What is taken out of the sums is measured again by single clients, in "
                "clear. With secure aggregation leave withdrawals out, and "
                "declarations where the history is 'd4s'."
            )

    def task(self, num_clients: int, priors: Priors) -> SecureTask:
        """Return what so many clients are told.

        Parameters
        ----------
        num_clients : int
            How many are asked.
        priors : mapping of str to Prior
            Of each measured weight.
        """
        return SecureTask(
            num_limbs=self.num_limbs,
            limb_bits=largest_limb_bits(num_clients),
            gram_exponent=self.gram_exponent,
            cross_exponent=self.cross_exponent,
            key_exponents={
                n: tuple(key_exponents(one.key_squares)) for n, one in priors.items()
            },
        )


@dataclass(frozen=True)
class SecureSummation:
    """Runs a training exchange of which the server sees sums and counts only.

    Attributes
    ----------
    options : SecureAggregation
        How.
    messenger : Messenger
        Of the strategy.
    shapes : mapping of str to (int, int)
        ``(d_value, d_key)`` by weight.
    """

    options: SecureAggregation
    messenger: Messenger
    shapes: Mapping[str, tuple[int, int]]

    def ask(
        self,
        grid: Grid,
        nodes: Sequence[int],
        instruction: Instruction,
        state: ServerState,
        priors: Priors,
        report: RoundReport,
    ) -> tuple[dict[str, StatisticsSum], ReplyFigures, list[int]]:
        """Return the measured weights' sums, what replies say in clear, and the nodes.

        Parameters
        ----------
        grid, nodes, instruction, state
            Who is asked for what, on which model.
        priors : mapping of str to Prior
            Of each measured weight.
        report : RoundReport
            Of the round.

        Raises
        ------
        AggregationError
            If there are too few replies, or one in the sum answers another instruction:
            nobody can be left out of a sum.
        """
        messenger, options = self.messenger, self.messenger.options
        task = self.options.task(len(nodes), priors)
        asked = instruction.model_copy(update={"secure": task.model_dump_json()})
        messages = messenger.messages(nodes, asked, state)
        for message in messages:
            sent = message.content.array_records[ARRAYS]
            report.download_bytes += record_bytes(sent)
        what = ", ".join(instruction.measured)
        label = f"Round {report.server_round}, {what}, secure"
        began = time.perf_counter()
        outcome = run_secure_exchange(
            grid,
            messages,
            task,
            label=label,
            threshold=self.options.threshold,
            min_replies=min(options.min_replies or len(messages), len(messages)),
            timeout_s=options.exchange_timeout_s,
        )
        seconds = time.perf_counter() - began
        report.add_seconds("exchange", seconds)
        messenger.enter_left_out(outcome.dropped, report)
        figures, num_edits = ReplyFigures(sum(outcome.upload_bytes.values())), 0

        def note(reply: Message) -> None:
            nonlocal figures, num_edits
            check_same_count(reply, report.edits_by_client)
            figures += ReplyFigures.of(reply)
            report.edits_by_client[sender_of(reply)] = num_edits_of(reply)
            num_edits += num_edits_of(reply)
            # Each took part in all stages, to the end.
            size = outcome.upload_bytes[reply.metadata.src_node_id]
            report.note_reply(sender_of(reply), size, seconds)

        shapes = {name: self.shapes[name] for name in instruction.measured}
        count = len(outcome.replies)
        by_node = {message.metadata.dst_node_id: message for message in messages}
        accept = messenger.naming(note, set(by_node), {})
        try:
            for node, found in outcome.replies.items():
                accept(_in_clear(found, by_node[node], asked, options.limits))
            sums = unpack_sum(outcome.mean, task, shapes, count, num_edits)
        except PayloadError as error:
            raise AggregationError(
                f"{label}: {error} Nobody can be left out of a sum; find the client "
                "and begin the round again without it."
            ) from error
        figures.enter(report)
        return sums, figures, sorted(outcome.replies)


def _in_clear(
    found: FitRes, message: Message, asked: Instruction, limits: ReplyLimits
) -> Message:
    """Return a reply without its arrays, once it is known to answer."""
    if found.num_examples != 1:
        raise PayloadError(f"Expected weight 1, found {found.num_examples}.")
    asked_nothing = asked.model_copy(update={"measured": ()})
    content = reply_content(ArrayRecord(), _NO_COUNT, found.metrics)
    checked_records(content, asked_nothing, limits)
    return Message(content, reply_to=message)
