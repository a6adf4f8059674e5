"""A federation without a language model: clients whose keys follow a small formula.

The keys of a layer depend on the deltas of the layers below, as a transformer's do, so
that the schedules differ; everything is float64 and takes milliseconds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor

from flwr_collabedit.algebra.priors import ridge_priors
from flwr_collabedit.algebra.schedule import exchange_groups, residual_share
from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.messages.declaration import DECLARATION, Declaration
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.payloads import (
    ARRAYS,
    CONFIG,
    METRICS,
    NUM_EDITS,
    RESIDUAL_SQUARE,
    SENDER,
    array_keys,
    pack_delta,
    pack_statistics,
    read_deltas,
    to_record,
)
from flwr_collabedit.messages.secure_payload import SecureTask, pack_secure
from flwr_collabedit.strategies import CollabEditStrategy, EditStrategy

D_KEY, D_VALUE, WEIGHT = 12, 5, 3.0
MODEL = EditedModel(
    fingerprint="test-model",
    shapes={f"layer.{i}": (D_VALUE, D_KEY) for i in range(3)},
)


def second_moments() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    samples = [
        torch.randn(4 * D_KEY, D_KEY, generator=generator, dtype=torch.float64)
        for _ in MODEL.parameters
    ]
    return {
        name: keys.T @ keys / len(keys)
        for name, keys in zip(MODEL.parameters, samples, strict=True)
    }


@dataclass(frozen=True)
class Edits:
    """Edits as numbers: what each adds to a key and where its value should go."""

    seeds: Tensor  # (D_KEY, n)
    goals: Tensor  # (D_VALUE, n)

    @classmethod
    def random(cls, num_edits: int, seed: int) -> "Edits":
        generator = torch.Generator().manual_seed(seed)
        return cls(
            torch.randn(D_KEY, num_edits, generator=generator, dtype=torch.float64),
            torch.randn(D_VALUE, num_edits, generator=generator, dtype=torch.float64),
        )

    def take(self, index: Sequence[int]) -> "Edits":
        return Edits(self.seeds[:, list(index)], self.goals[:, list(index)])

    @property
    def num_edits(self) -> int:
        return self.seeds.shape[1]

    def measure(self, layer: int, deltas: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        hidden = torch.zeros_like(self.goals)
        keys: list[Tensor] = []
        for index, delta in enumerate(deltas):
            lift = hidden.sum(dim=0, keepdim=True)
            keys.append(torch.tanh(self.seeds + (index + 1) * 0.1 + 0.3 * lift))
            hidden = hidden + delta @ keys[-1]
        return keys[layer], self.goals - hidden


def client_app(
    clients: Sequence[Edits | Sequence[Edits]],
    tamper: Callable[[int, Message], Message] = lambda index, reply: reply,
    seen: list[Message] | None = None,
    withdrawals: Mapping[tuple[int, int], EditSet] | None = None,
) -> ClientApp:
    """Return a ClientApp whose clients hold these edits.

    A client has the same edits in every round, or a list with those of each. What one
    takes back is under its index and the round.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if seen is not None:
            seen.append(message)
        index = int(context.node_config["partition-id"])
        config = message.content.config_records[CONFIG]
        instruction = Instruction.from_config(config)
        deltas = list(
            read_deltas(message.content.array_records[ARRAYS], MODEL).values()
        )
        if instruction.measured_on == "base":
            deltas = [torch.zeros_like(delta) for delta in deltas]
        own = clients[index]
        edits = own if isinstance(own, Edits) else chosen_edits(own, instruction)
        figures = {}
        if instruction.phase == "declare":
            back = (withdrawals or {}).get((index, instruction.server_round), EditSet())
            said = Declaration(
                num_edits=edits.num_edits, take_back=back.to_json(), **tags_of(edits)
            )
            figures = {DECLARATION: said.model_dump_json()}
            parts, square = [], 0.0
        else:
            parts, square = reply_arrays(edits, instruction, deltas)
        content = RecordDict(
            {
                ARRAYS: to_record(
                    array_keys(instruction.measured, instruction.form), parts
                ),
                METRICS: MetricRecord(
                    {NUM_EDITS: edits.num_edits, RESIDUAL_SQUARE: square}
                ),
                CONFIG: ConfigRecord(
                    {
                        SENDER: f"client-{index}",
                        **instruction.reply_config(),
                        **figures,
                    }
                ),
            }
        )
        return tamper(index, Message(content, reply_to=message))

    return app


def tags_of(edits: Edits) -> dict[str, object]:
    """Return tags that are equal where seeds and goals are."""
    columns = range(edits.num_edits)
    return {
        "fact_tags": [str(edits.seeds[:, i].tolist()) for i in columns],
        "target_tags": [str(edits.goals[:, i].tolist()) for i in columns],
        "key_check": "one key",
    }


def chosen_edits(rounds: Sequence[Edits], asked: Instruction) -> Edits:
    """Return the edits of the round that count, or those to be taken out."""
    chosen = EditSet.from_json(asked.withdrawn)
    inactive = EditSet.from_json(asked.inactive)
    is_withdrawal = asked.phase == "withdraw"
    numbers = sorted(chosen.rounds) if is_withdrawal else [asked.server_round]
    found = []
    for number in numbers:
        edits = rounds[number - 1] if number <= len(rounds) else Edits.random(0, 0)
        places = [
            place
            for place in range(edits.num_edits)
            if (number, place) not in inactive
            and (not is_withdrawal or (number, place) in chosen)
        ]
        found.append(edits.take(places))
    return Edits(
        torch.cat([e.seeds for e in found], 1), torch.cat([e.goals for e in found], 1)
    )


def reply_arrays(edits: Edits, asked: Instruction, deltas: list[Tensor]):
    """Return what a client sends, and the squared norm of its residuals."""
    alone = asked.form == "delta" or asked.layer_schedule == "local"
    if alone:
        schedule = "frozen" if asked.layer_schedule == "frozen" else "synchronous"
        own, measured = written_alone(edits, schedule, asked.residual_split, deltas)
    else:
        layers = [MODEL.parameters.index(name) for name in asked.measured]
        measured = {layer: edits.measure(layer, deltas) for layer in layers}
    parts = []
    for name in asked.measured:
        layer = MODEL.parameters.index(name)
        if asked.form == "delta":
            parts += pack_delta(own[layer] - deltas[layer], asked.wire_dtype)
        elif asked.secure:
            task = SecureTask.from_json(asked.secure)
            parts += pack_secure(*measured[layer], task, name)
        else:
            parts += pack_statistics(*measured[layer], asked.form, asked.wire_dtype)
    first = MODEL.parameters.index(asked.measured[0])
    return parts, float(measured[first][1].square().sum())


def strategy(num_clients: int, kind=None, **options: object) -> EditStrategy:
    """Return a server; CollabEdit unless another strategy's class is given."""
    common = {
        "hyperparameters": "{}",
        "contexts": "[]",
        "wire_dtype": "float64",
        "min_available_nodes": num_clients,
        "evaluate": False,
        "exchange_timeout_s": 5.0,
    }
    if kind is not None:
        return kind(MODEL, **{**common, **options})
    priors = ridge_priors(second_moments(), WEIGHT)
    return CollabEditStrategy(MODEL, priors, **{**common, **options})


def pooled_deltas(
    edits: Edits,
    schedule: str,
    split: str,
    sweeps: int = 1,
    start: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Return what one party makes of the edits in one round, written out plainly."""
    return written_alone(edits, schedule, split, start, sweeps)[0]


def written_alone(
    edits: Edits,
    schedule: str,
    split: str,
    start: Sequence[Tensor] | None = None,
    sweeps: int = 1,
) -> tuple[list[Tensor], dict[int, tuple[Tensor, Tensor]]]:
    """Return one party's deltas, and what each layer was last solved from."""
    moments = second_moments()
    zeros = [torch.zeros(D_VALUE, D_KEY, dtype=torch.float64) for _ in moments]
    start = zeros if start is None else start
    deltas, measured = list(start), {}
    for group in exchange_groups(MODEL.parameters, schedule) * sweeps:
        layers = [MODEL.parameters.index(name) for name in group]
        measured |= {layer: edits.measure(layer, deltas) for layer in layers}
        for layer in layers:
            keys, residuals = measured[layer]
            prior = WEIGHT * moments[MODEL.parameters[layer]]
            wanted = residual_share(layer, len(deltas), split) * residuals
            right_side = wanted @ keys.T - (deltas[layer] - start[layer]) @ prior
            step = torch.linalg.solve(prior + keys @ keys.T, right_side, left=False)
            deltas[layer] = deltas[layer] + step
    return deltas, measured
