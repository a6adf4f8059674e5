"""What becomes of a round when something fails: ``python -m tests.faults``.

Each fault happens to one client of four, or to the server, in a federation of numbers.
The weights must be, to the bit, those of a run in which only the others took part.
"""

import logging
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # as pytest does

import torch
from federation import MODEL, Edits, client_app, strategy
from flwr.app import Message
from flwr.serverapp.exception import AggregationError
from hostile import DAMAGES
from rich.console import Console
from rich.table import Table
from torch import Tensor

from flwr_collabedit.messages.payloads import read_deltas
from simulations.in_process import InProcessGrid

NUM_CLIENTS, VICTIM, ROUNDS = 4, 1, 2
VICTIM_NODE = 1000 + VICTIM
CLIENTS = [[Edits.random(3, 10 * seed + r) for r in range(ROUNDS)] for seed in range(4)]
Tamper = Callable[[int, Message], Message]


class FaultyGrid(InProcessGrid):
    """Withholds, repeats or delays the replies of one node."""

    def __init__(self, *args: object, fault: str = "", from_exchange: int = 0) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._fault, self._from, self._exchanges = fault, from_exchange, 0
        self._late: list[Message] = []

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Count the exchanges."""
        self._exchanges += 1
        return list(super().push_messages(messages))

    def get_node_ids(self) -> list[int]:
        """Leave out a node that is gone."""
        is_gone = self._fault == "gone" and self._exchanges >= self._from
        nodes = list(super().get_node_ids())
        return [node for node in nodes if not (is_gone and node == VICTIM_NODE)]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Deliver, but for what the fault is about."""
        for reply in super().pull_messages(message_ids):
            is_hit = reply.metadata.src_node_id == VICTIM_NODE
            is_silent = self._fault in ("hangs", "late", "twice")
            if not (is_hit and is_silent) or self._exchanges <= self._from:
                yield reply
            elif self._fault == "twice":
                yield from (reply, reply)
            elif self._fault == "late":
                yield from self._late
                self._late = [reply]


@dataclass(frozen=True)
class Fault:
    """One way to fail, and who takes part nevertheless.

    Attributes
    ----------
    name : str
        What happens.
    tamper : callable or None
        What the victim does to its reply.
    grid : str
        What `FaultyGrid` does with it.
    from_exchange : int
        Exchanges that go well before.
    survivors : tuple of (int, ...)
        By round, whose edits are in the weights.
    """

    name: str
    tamper: Tamper | None = None
    grid: str = ""
    from_exchange: int = 0
    survivors: tuple[tuple[int, ...], ...] = ((0, 2, 3), (0, 2, 3))


def _crash(index: int, reply: Message) -> Message:
    if index == VICTIM:
        raise MemoryError("out of memory")
    return reply


def _damage(name: str) -> Tamper:
    def tamper(index: int, reply: Message) -> Message:
        if index == VICTIM:
            import random

            reply.content = DAMAGES[name](reply.content, random.Random(0))
        return reply

    return tamper


ALL = (0, 1, 2, 3)
FAULTS = (
    Fault("nothing", survivors=(ALL, ALL)),
    Fault("a client crashes", _crash),
    Fault("a client hangs past the timeout", grid="hangs"),
    Fault("a client hangs from the second round on", grid="hangs", from_exchange=1,
          survivors=(ALL, (0, 2, 3))),
    Fault("a client answers twice", grid="twice", survivors=(ALL, ALL)),
    Fault("a client answers an exchange late", grid="late"),
    Fault("a client is gone for good after the first round", grid="gone",
          from_exchange=1, survivors=(ALL, (0, 2, 3))),
    *(Fault(f"a client sends: {name}", _damage(name)) for name in DAMAGES),
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes
    ----------
    dropped : dict of str to str
        The last round's report: who was left out, and why.
    lost : int
        Edits of valid clients that are not in the weights.
    is_equal : bool
        Whether the weights have the bits of the survivors' own run.
    """

    dropped: dict[str, str]
    lost: int
    is_equal: bool


def run(fault: Fault, **options: object) -> Outcome:
    """Return what becomes of two rounds with the fault."""
    app = client_app(CLIENTS, fault.tamper or (lambda _, reply: reply))
    server = _server(**options)
    grid = FaultyGrid(
        app, NUM_CLIENTS, fault=fault.grid, from_exchange=fault.from_exchange
    )
    deltas = read_deltas(server.start(grid, num_rounds=ROUNDS).arrays, MODEL)
    expected = survivors_deltas(fault.survivors, **options)
    written = sum(report.num_edits for report in server.reports)
    due = sum(
        CLIENTS[client][number].num_edits
        for number, clients in enumerate(fault.survivors)
        for client in clients
    )
    return Outcome(
        server.reports[-1].dropped,
        due - written,
        all(torch.equal(deltas[name], expected[name]) for name in MODEL.parameters),
    )


def survivors_deltas(
    survivors: tuple[tuple[int, ...], ...], **options: object
) -> dict[str, Tensor]:
    """Return the weights of a run in which the others had no edits at all."""
    none = Edits.random(0, 0)
    clients = [
        [own[r] if index in survivors[r] else none for r in range(ROUNDS)]
        for index, own in enumerate(CLIENTS)
    ]
    server = _server(**options)
    grid = InProcessGrid(client_app(clients), NUM_CLIENTS)
    return read_deltas(server.start(grid, num_rounds=ROUNDS).arrays, MODEL)


def _server(**options: object):
    return strategy(
        NUM_CLIENTS - 1,
        **{
            "layer_schedule": "frozen",
            "min_replies": NUM_CLIENTS - 1,
            "exchange_timeout_s": 0.3,
            **options,
        },
    )


def below_min_replies() -> str:
    """Return how a round ends that has fewer valid replies than it needs."""
    try:
        run(Fault("", _crash), min_replies=NUM_CLIENTS)
    except AggregationError as error:
        return str(error)
    return ""


def killed_and_resumed(folder: Path) -> bool:
    """Return whether a server that goes on from its checkpoint gives the same bits."""
    grid = InProcessGrid(client_app(CLIENTS), NUM_CLIENTS)
    whole = _server().start(grid, num_rounds=ROUNDS)
    _server(checkpoint_folder=folder).start(grid, num_rounds=1)
    resumed = _server(checkpoint_folder=folder).start(grid, num_rounds=ROUNDS)
    found, expected = (read_deltas(r.arrays, MODEL) for r in (resumed, whole))
    return all(torch.equal(found[name], expected[name]) for name in MODEL.parameters)


def main() -> None:
    """Print the table; end with 1 if a row is not as it must be."""
    logging.disable(logging.CRITICAL)
    table = Table(title="One client of four fails; two rounds of two")
    for column in ("fault", "left out in the last round", "edits lost", "same bits"):
        table.add_column(column)
    good = True
    for fault in FAULTS:
        found = run(fault)
        good &= found.lost == 0 and found.is_equal
        reason = "; ".join(why[:60] for why in found.dropped.values())
        table.add_row(fault.name, reason, str(found.lost), str(found.is_equal))
    message = below_min_replies()
    table.add_row("fewer valid replies than min_replies", message[:90], "-", "-")
    with tempfile.TemporaryDirectory() as folder:
        same = killed_and_resumed(Path(folder))
    table.add_row("the server is ended and resumed", "", "0", str(same))
    Console(width=150).print(table)
    sys.exit(0 if good and message and same else 1)


if __name__ == "__main__":
    main()
