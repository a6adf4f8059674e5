"""What the tests of long runs share: clients of five rounds, a shuffling grid."""

import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from federation import Edits, client_app, strategy
from flwr.app import Message

from flwr_collabedit.conflict_resolution import Resolution
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.strategies import DeclarationRules, EditStrategy, Withdrawal
from simulations.in_process import InProcessGrid

NUM_ROUNDS = 5
D4S = {"history": "d4s", "layer_schedule": "frozen"}
# What goes on over rounds: sums, a ledger, withdrawals by both ways, conflicts.
RUNS: dict[str, Mapping[str, Any]] = {
    "none": {},
    "dynamic-covariance": {"history": "dynamic-covariance", "beta_1": 2.0},
    "d4s": {**D4S, "withdrawals": [Withdrawal.parse("client:client-2@4")]},
    "d4s-dense": {
        **D4S,
        "form": "dense",
        "withdrawals": [Withdrawal.parse("round:2@4")],
    },
    "conflicts": {
        **D4S,
        "declarations": DeclarationRules(
            resolution=Resolution("last-come"), take_back=True
        ),
    },
    "conflicts-none": {
        "declarations": DeclarationRules(resolution=Resolution("majority"))
    },
}
TAKEN_BACK = {(0, 4): EditSet.of({2: [1]})}


class ShufflingGrid(InProcessGrid):
    """Hands over replies in an order of its own."""

    def __init__(self, *args: Any, seed: int = 0) -> None:
        super().__init__(*args)
        self._random = random.Random(seed)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        replies = list(super().pull_messages(message_ids))
        self._random.shuffle(replies)
        yield from replies


def contradicting(edits: Edits, seed: int) -> Edits:
    """Return the same facts with other targets."""
    return Edits(edits.seeds, Edits.random(edits.num_edits, seed).goals)


def clients() -> list[list[Edits]]:
    """Return three clients' rounds; in rounds 1 and 3 some contradict each other."""
    found = [
        [Edits.random(3, 100 * client + number) for number in range(NUM_ROUNDS)]
        for client in range(3)
    ]
    found[1][0] = joined(found[1][0], contradicting(found[0][0].take([0]), 900))
    found[2][2] = joined(found[2][2], contradicting(found[1][1].take([1, 2]), 901))
    return found


def joined(one: Edits, other: Edits) -> Edits:
    return Edits(
        torch.cat([one.seeds, other.seeds], 1), torch.cat([one.goals, other.goals], 1)
    )


def make(name: str, folder: Path | None, **options: Any) -> EditStrategy:
    """Return a server of one of `RUNS` that keeps its checkpoints in a folder."""
    return strategy(3, **{**RUNS[name], "checkpoint_folder": folder, **options})


def grid_of(name: str, order: int = 0, **options: Any) -> ShufflingGrid:
    """Return a grid of the clients whose replies come in the order of a seed."""
    back = TAKEN_BACK if name == "conflicts" else None
    app = client_app(clients(), withdrawals=back, **options)
    return ShufflingGrid(app, 3, seed=order)
