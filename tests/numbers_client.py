"""The clients of `federation` behind a ``NumPyClient``, which both APIs can ask."""

from collections.abc import Callable, Sequence

import torch
from federation import Edits, chosen_edits, reply_arrays, tags_of
from flwr.app import Context
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp

from flwr_collabedit.client.editing_app import make_client_app
from flwr_collabedit.evaluation.metrics import MetricSums
from flwr_collabedit.messages.declaration import DECLARATION, Declaration
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.payloads import NUM_EDITS, RESIDUAL_SQUARE, SENDER

Hook = Callable[[int, Instruction], None]


class NumbersClient(NumPyClient):
    """Answers like `federation.client_app`; ``hook`` may raise in the place of it."""

    def __init__(self, index: int, rounds: Sequence[Edits], hook: Hook) -> None:
        self.index, self.rounds, self.hook = index, rounds, hook

    def fit(self, parameters, config):
        asked = Instruction.from_config(config)
        self.hook(self.index, asked)
        edits = chosen_edits(self.rounds, asked)
        deltas = [torch.tensor(array).double() for array in parameters]
        head = {SENDER: f"client-{self.index}", **asked.reply_config()}
        if asked.phase == "declare":
            said = Declaration(num_edits=edits.num_edits, **tags_of(edits))
            return [], edits.num_edits, {DECLARATION: said.model_dump_json(), **head}
        parts, square = reply_arrays(edits, asked, deltas)
        figures = {RESIDUAL_SQUARE: square, **head}
        if asked.secure:
            return parts, 1, {NUM_EDITS: edits.num_edits, **figures}
        return parts, edits.num_edits, figures

    def evaluate(self, parameters, config):
        asked = Instruction.from_config(config)
        self.hook(self.index, asked)
        deltas = [torch.tensor(array).double() for array in parameters]
        left = self.rounds[0].measure(len(deltas) - 1, deltas)[1].norm(dim=0)
        sums = MetricSums()
        for value in left:
            sums = sums + MetricSums.of({"efficacy-success": float(value)})
        head = {SENDER: f"client-{self.index}", **asked.reply_config()}
        return float(left.mean()), len(left), {**sums.to_flat(), **head}


def numbers_client_fn(
    clients: Sequence[Sequence[Edits]], hook: Hook = lambda index, asked: None
) -> Callable[[Context], NumbersClient]:
    def client_fn(context: Context) -> NumbersClient:
        index = int(context.node_config["partition-id"])
        return NumbersClient(index, clients[index], hook)

    return client_fn


def both_apps(clients: Sequence[Sequence[Edits]]) -> dict[str, ClientApp]:
    """Return our app, which speaks both APIs, and Flower's own legacy one."""
    client_fn = numbers_client_fn(clients)
    return {
        "ours": make_client_app(client_fn),
        "legacy only": ClientApp(lambda context: client_fn(context).to_client()),
    }
