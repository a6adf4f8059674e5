"""A re-edit against its formula: own edits are to stay, others' vectors come in."""

from dataclasses import replace

import pytest
import torch
from torch.linalg import matrix_norm

from flwr_collabedit.algebra.mediator import MediatorVectors
from flwr_collabedit.client.personal_editing import PersonalEditing
from flwr_collabedit.client.personal_store import PersonalModel
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.pmet_config import PmetConfig
from flwr_collabedit.messages.personal_task import PersonalTask

SHAPES = {"first": (4, 9), "second": (4, 9)}
WEIGHT = 0.5
SPLITS = {MemitConfig: (1 / 2, 1 / 2), PmetConfig: (2**-0.5, 1.0)}


def vectors(count, seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    keys = {name: draw(d_key, count) for name, (_, d_key) in SHAPES.items()}
    return MediatorVectors(draw(count, 4), draw(count, 4), keys, torch.arange(count))


def moments():
    found = {}
    for seed, (name, (_, d_key)) in enumerate(SHAPES.items()):
        keys = torch.randn(
            d_key, 40, generator=torch.Generator().manual_seed(90 + seed)
        ).double()
        found[name] = keys @ keys.T / 40
    return found


def model(own):
    generator = torch.Generator().manual_seed(7)
    deltas = {
        name: torch.randn(*shape, generator=generator, dtype=torch.float64)
        for name, shape in SHAPES.items()
    }
    return replace(PersonalModel.new(SHAPES), slot=1, deltas=deltas, own=own)


def re_edited(started, others, config=MemitConfig):
    names = tuple(f"client-1/1/{i}" for i in range(len(others)))
    task = PersonalTask(run_id="run", phase="re-edit", provenance=names)
    memit = config(layers=(0, 1), second_moment_weight=WEIGHT)
    instruction = type("Asked", (), {"server_round": 1})
    work = PersonalEditing(None, memit, instruction, task, SHAPES, moments())
    return work.re_edit(started, others)


@pytest.mark.parametrize("config", [MemitConfig, PmetConfig])
def test_the_own_keys_are_part_of_what_must_stay(config):
    started, others = model(vectors(3, 1)), vectors(2, 2)

    found, counts = re_edited(started, others, config)

    assert counts["reused"] == 2
    for (name, before), share in zip(
        started.deltas.items(), SPLITS[config], strict=True
    ):
        own, keys = started.own.keys[name], others.keys[name]
        residual = share * others.delta.T - before @ keys
        system = WEIGHT * moments()[name] + own @ own.T + keys @ keys.T
        expected = before + residual @ keys.T @ torch.linalg.inv(system)
        torch.testing.assert_close(found.deltas[name], expected, rtol=1e-9, atol=1e-9)


def test_own_values_move_less_than_without_their_keys():
    own, others = vectors(3, 1), vectors(6, 2)
    started = model(own)
    knows_nothing = replace(started, own=vectors(0, 1))

    kept, _ = re_edited(started, others)
    written_over, _ = re_edited(knows_nothing, others)

    for name, before in started.deltas.items():
        moved, lost = (
            float(matrix_norm((one.deltas[name] - before) @ own.keys[name]))
            for one in (kept, written_over)
        )
        assert moved < 0.5 * lost
