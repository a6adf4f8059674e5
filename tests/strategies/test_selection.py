"""The re-edit condition, applied by the server and by the clients to random vectors."""

from dataclasses import replace

import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import event, given, settings
from hypothesis import strategies as st

from flwr_collabedit.algebra.mediator import MediatorVectors
from flwr_collabedit.client.personal_editing import PersonalEditing
from flwr_collabedit.client.personal_store import PersonalModel
from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.mediator_payload import pack_vectors, unpack_vectors
from flwr_collabedit.messages.payloads import (
    ARRAYS,
    CONFIG,
    METRICS,
    NUM_EDITS,
    SENDER,
    array_keys,
    to_record,
)
from flwr_collabedit.messages.personal_task import PersonalTask
from flwr_collabedit.strategies import FedEditStrategy
from simulations.in_process import InProcessGrid

D_VALUE = 96  # wide enough for last bits to depend on how many vectors there are
SHAPES = {"l.0": (D_VALUE, 8), "l.1": (D_VALUE, 8)}
MODEL = EditedModel(fingerprint="none", shapes=SHAPES)
MEMIT = MemitConfig(layers=(0, 1))
SLOTS = 2

# Edits of every client in every slot.
sizes_by_slot = st.integers(2, 4).flatmap(
    lambda clients: st.lists(
        st.lists(st.integers(0, 4), min_size=clients, max_size=clients),
        min_size=SLOTS,
        max_size=SLOTS,
    )
)
options = st.fixed_dictionaries(
    {
        "alpha": st.floats(-1, 1),
        "alpha_percentile": st.sampled_from([None, 60.0, 90.0]),
        "similarity": st.sampled_from(["z", "delta"]),
        "wire_dtype": st.sampled_from(["float32", "float64"]),
        "num_slots": st.integers(1, SLOTS),
    }
)


def random_vectors(count: int, generator: torch.Generator) -> MediatorVectors:
    # With a common part, as targets have: else half of a client's own are never near.
    z, delta = (
        1 + torch.randn(count, D_VALUE, generator=generator, dtype=torch.float64)
        for _ in range(2)
    )
    keys = {
        name: torch.randn(d_key, count, generator=generator, dtype=torch.float64)
        for name, (_, d_key) in SHAPES.items()
    }
    return MediatorVectors(z, delta, keys, torch.ones(count, dtype=torch.int64))


def client_app(slots, models: dict[int, PersonalModel]) -> ClientApp:
    """Return clients that share given vectors and re-edit as FedEdit's do."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        index = int(context.node_config["partition-id"])
        asked = Instruction.from_config(message.content.config_records[CONFIG])
        task = PersonalTask.from_json(asked.personal)
        model = models.get(index, PersonalModel.new(SHAPES))
        arrays, counts = [], {}
        if task.phase == "share":
            mine = slots[asked.server_round - 1][index]
            arrays = pack_vectors(mine, asked.wire_dtype)
            mine = unpack_vectors(arrays, SHAPES)
            own = MediatorVectors.join([model.own, mine])
            model = replace(model, own=own, slot_size=len(mine))
        else:
            sent = [a.numpy() for a in message.content.array_records[ARRAYS].values()]
            vectors = unpack_vectors(sent, SHAPES, len(task.provenance))
            moments = {n: torch.eye(d_key) for n, (_, d_key) in SHAPES.items()}
            editing = PersonalEditing(None, MEMIT, asked, task, SHAPES, moments)
            model, counts = editing.re_edit(model, vectors)
        models[index] = model
        keys = array_keys(SHAPES, "mkv") if arrays else []
        num_edits = len(arrays[0]) if arrays else 0
        content = RecordDict(
            {
                ARRAYS: to_record(keys, arrays),
                METRICS: MetricRecord({NUM_EDITS: num_edits, **counts}),
                CONFIG: ConfigRecord(
                    {**asked.reply_config(), SENDER: f"client-{index}"}
                ),
            }
        )
        return Message(content, reply_to=message)

    return app


def received(slots, selection: str, chosen: dict) -> list[tuple[str, ...]]:
    """Return the names of what each client has written after all slots."""
    models: dict[int, PersonalModel] = {}
    server = FedEditStrategy(
        MODEL,
        run_id="run",
        selection=selection,
        hyperparameters="{}",
        contexts="[]",
        min_available_nodes=len(slots[0]),
        evaluate=False,
        **chosen,
    )
    server.start(
        InProcessGrid(client_app(slots, models), len(slots[0])), num_rounds=SLOTS
    )
    return [models[index].received for index in sorted(models)]


@settings(max_examples=40, deadline=None)
@given(sizes_by_slot, options, st.integers(0, 999))
def test_server_and_clients_select_the_same_of_random_vectors(sizes, chosen, seed):
    generator = torch.Generator().manual_seed(seed)
    slots = [[random_vectors(n, generator) for n in counts] for counts in sizes]

    by_server = received(slots, "server", chosen)

    assert by_server == received(slots, "client", chosen)
    event(f"something selected: {any(by_server)}")
