"""Strategies that merge deltas go on from a checkpoint too."""

import pytest
from federation import strategy
from long_runs import NUM_ROUNDS, grid_of

from flwr_collabedit.errors import CheckpointError
from flwr_collabedit.strategies import (
    EditAvg,
    SimpleAverage,
    TaskArithmetic,
    TiesMerging,
)

LAST = f"round-{NUM_ROUNDS:05d}.safetensors"


def run(kind, folder, num_rounds=NUM_ROUNDS, order=0, **options):
    server = strategy(3, kind, checkpoint_folder=folder, **options)
    return server.start(grid_of("none", order), num_rounds=num_rounds)


@pytest.mark.parametrize("kind", [EditAvg, SimpleAverage, TaskArithmetic, TiesMerging])
@pytest.mark.parametrize("done", [1, 4])
def test_a_run_goes_on_with_the_same_bytes(kind, done, tmp_path):
    run(kind, tmp_path / "whole")

    run(kind, tmp_path / "parts", done, order=1)
    result = run(kind, tmp_path / "parts", order=2)

    whole, parts = (tmp_path / name / LAST for name in ("whole", "parts"))
    assert parts.read_bytes() == whole.read_bytes()
    assert list(result.train_metrics_clientapp) == list(range(1, NUM_ROUNDS + 1))


@pytest.mark.parametrize(
    ("kind", "changes", "named"),
    [
        (EditAvg, {"layer_schedule": "frozen"}, "layer schedule 'local'"),
        (EditAvg, {"kind": SimpleAverage}, "strategy 'EditAvg'"),
        (TaskArithmetic, {"scale": 0.5}, "scale '1.0'"),
        (TiesMerging, {"scale": 0.5}, "scale '1.0'"),
        (TiesMerging, {"density": 0.5}, "density '0.2'"),
    ],
)
def test_another_merge_is_refused(kind, changes, named, tmp_path):
    run(kind, tmp_path, 1)

    with pytest.raises(CheckpointError, match=f"written with {named}"):
        run(**{"kind": kind, "folder": tmp_path, **changes})
    assert not (tmp_path / LAST).exists()


def test_another_split_is_refused(tmp_path):
    run(EditAvg, tmp_path, 1, layer_schedule="frozen")

    with pytest.raises(CheckpointError, match="written with residual split 'uniform'"):
        run(EditAvg, tmp_path, layer_schedule="frozen", residual_split="remaining")
