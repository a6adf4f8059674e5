"""A checkpoint holds the state bit by bit, and a run goes on from it as if unbroken."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from federation import D_KEY, D_VALUE, MODEL, client_app, strategy
from long_runs import D4S, NUM_ROUNDS, RUNS, clients, grid_of, make

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.factors import SealedFactors, seal
from flwr_collabedit.algebra.history import EditHistory
from flwr_collabedit.algebra.ledger import Ledger, LedgerEntry
from flwr_collabedit.algebra.running_sum import StatisticsSum
from flwr_collabedit.conflict_resolution import Entry
from flwr_collabedit.errors import CheckpointError
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.strategies.checkpoint import Checkpoint
from flwr_collabedit.strategies.round_report import RoundReport
from flwr_collabedit.strategies.server_state import ServerState
from simulations.in_process import InProcessGrid

WORKER = Path(__file__).with_name("resume_worker.py")
PATHS = WORKER.parents[1:3]
LAST = f"round-{NUM_ROUNDS:05d}.safetensors"


def random(*shape, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def statistics(seed):
    return EditStatistics.from_pairs(
        random(D_KEY, 4, seed=seed), random(D_VALUE, 4, seed=seed + 1)
    )


def factors(seed, rank, dtype=torch.float32):
    found = seal(random(D_KEY, rank, seed=seed), random(D_VALUE, rank, seed=seed + 1))
    return SealedFactors(
        found.key_factor.to(dtype), found.residual_factor.to(dtype), rank
    )


def full_state() -> ServerState:
    """Return a state with something in every place that can hold something."""
    sums = {}
    for index, name in enumerate(MODEL.parameters):
        total = StatisticsSum.of(statistics(10 * index))
        sums[name] = total.plus(statistics(10 * index + 3)).minus(statistics(7))
        assert sums[name].gram.low.any()
        assert sums[name].cross.low.any()
    entries = [
        LedgerEntry("client-0", 1, {n: factors(3, 2) for n in MODEL.parameters}),
        LedgerEntry("client-1", 1, {n: factors(5, 0) for n in MODEL.parameters}),
        LedgerEntry(
            "client-0", 1, {n: factors(3, 1, torch.float64) for n in sums}, True
        ),
    ]
    return ServerState(
        deltas={n: random(*s, seed=1) for n, s in MODEL.shapes.items()},
        history=EditHistory("d4s", 0.5, 2.5, sums),
        ledger=Ledger(tuple(entries)),
        took_part={"client-0": (1, 3), "client-1": (2,)},
        inactive={"client-0": EditSet.of({1: [0, 2], 3: None})},
        left_out={"client-0": EditSet.of({1: [2]})},
        tagged=(Entry("client-1", 2, 0, 4, "fact", "target"),),
    )


def tensors_of(state):
    found = [*state.deltas.values()]
    for total in state.history.sums.values():
        found += [total.gram.total, total.gram.low, total.cross.total, total.cross.low]
    for entry in state.ledger.entries:
        for one in entry.factors.values():
            found += [one.key_factor, one.residual_factor]
    return found


def rest_of(state):
    history = state.history
    return [
        list(state.deltas),
        [history.option, *history.betas],
        {name: total.num_edits for name, total in history.sums.items()},
        [
            (e.client, e.server_round, e.is_withdrawal, e.num_edits, list(e.factors))
            for e in state.ledger.entries
        ],
        [state.took_part, state.inactive, state.left_out, state.tagged],
    ]


def test_a_full_state_comes_back_bit_by_bit(tmp_path):
    state, checkpoint = full_state(), Checkpoint(tmp_path / "new", {"model": "m"})
    report = RoundReport(3, num_edits=7, efficacy_by_round={"1": {"EA": 50.0}})

    checkpoint.save(3, state, [RoundReport(0), report])
    server_round, found, reports = checkpoint.load()

    assert server_round == 3
    assert reports == [RoundReport(0), report]
    assert rest_of(found) == rest_of(state)
    for one, other in zip(tensors_of(found), tensors_of(state), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "reports.json",
        "round-00003.safetensors",
    ]


def test_an_empty_folder_is_a_new_run(tmp_path):
    assert Checkpoint(tmp_path / "none", {}).load() is None


@pytest.mark.parametrize(("keep", "kept"), [(1, [5]), (2, [4, 5]), (0, range(1, 6))])
def test_as_many_checkpoints_stay_as_are_wanted(keep, kept, tmp_path):
    make("none", tmp_path, keep_checkpoints=keep).start(grid_of("none"), num_rounds=5)

    found = sorted(path.name for path in tmp_path.glob("round-*"))
    assert found == [f"round-{number:05d}.safetensors" for number in kept]


@pytest.fixture(scope="module", params=RUNS)
def whole(request, tmp_path_factory):
    """An uninterrupted run, with the checkpoints of all its rounds."""
    folder = tmp_path_factory.mktemp(request.param)
    server = make(request.param, folder, keep_checkpoints=0)
    server.start(grid_of(request.param), num_rounds=NUM_ROUNDS)
    return request.param, folder, server


@pytest.mark.parametrize("done", range(1, NUM_ROUNDS + 1))
def test_a_run_goes_on_with_the_same_bytes_from_any_round(whole, done, tmp_path):
    name, folder, unbroken = whole
    for path in (folder / f"round-{done:05d}.safetensors", folder / "reports.json"):
        shutil.copy(path, tmp_path)
    told, asked = [], []
    grid = grid_of(name, order=done, seen=asked)

    server = make(name, tmp_path, on_round=lambda r: told.append(r.server_round))
    result = server.start(grid, num_rounds=NUM_ROUNDS)

    assert (tmp_path / LAST).read_bytes() == (folder / LAST).read_bytes()
    for one, delta in unbroken.state.deltas.items():
        assert torch.equal(server.state.deltas[one], delta)
    rounds = list(range(1, NUM_ROUNDS + 1))
    assert told == rounds[done:]
    assert {int(message.metadata.group_id) for message in asked} == set(rounds[done:])
    assert list(result.train_metrics_clientapp) == rounds
    for number, metrics in result.train_metrics_clientapp.items():
        expected = unbroken.reports[number - 1]
        assert metrics["num-examples"] == expected.num_edits
        assert server.reports[number - 1].declared == expected.declared


def test_a_killed_server_goes_on_with_the_same_bytes(tmp_path):
    make("conflicts", tmp_path / "whole").start(grid_of("conflicts"), num_rounds=5)
    killed = tmp_path / "killed"

    process = subprocess.Popen(
        [sys.executable, str(WORKER), str(killed), "0.1"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, PATHS))},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 120
    while not (killed / "round-00002.safetensors").exists():
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)

    assert process.wait() == -signal.SIGKILL
    assert not (killed / LAST).exists()
    make("conflicts", killed).start(grid_of("conflicts"), num_rounds=5)
    assert (killed / LAST).read_bytes() == (tmp_path / "whole" / LAST).read_bytes()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"history": "dynamic-covariance"}, "history .*'d4s'.*dynamic-covariance"),
        ({"layer_schedule": "synchronous", "history": "none"}, "layer schedule"),
        ({"hyperparameters": '{"x": 1}'}, "hyperparameters"),
        ({"contexts": '["{}"]'}, "contexts"),
        ({"residual_split": "remaining"}, "residual split"),
        ({"form": "dense"}, "form"),
        ({"wire_dtype": "float32"}, "wire dtype"),
    ],
)
def test_another_runs_checkpoint_is_refused_and_stays(changes, named, tmp_path):
    options = {**D4S, "checkpoint_folder": tmp_path}
    grid = InProcessGrid(client_app(clients()), 3)
    strategy(3, **options).start(grid, num_rounds=2)
    before = contents(tmp_path)

    with pytest.raises(CheckpointError, match=f"written with {named}") as caught:
        strategy(3, **{**options, **changes}).start(grid, num_rounds=3)

    assert "Give it the same, or a folder of its own" in str(caught.value)
    assert "Delete" not in str(caught.value)
    assert contents(tmp_path) == before


def test_another_models_checkpoint_is_refused(tmp_path, monkeypatch):
    grid = grid_of("d4s")
    make("d4s", tmp_path).start(grid, num_rounds=1)
    another = replace(MODEL, fingerprint="another model")
    monkeypatch.setattr("federation.MODEL", another)

    with pytest.raises(CheckpointError, match="with model 'test-model'"):
        make("d4s", tmp_path).start(grid, num_rounds=2)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def shortened(folder):
    path = folder / "round-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-40])


def emptied(folder):
    (folder / "round-00002.safetensors").write_bytes(b"")


def without_reports(folder):
    (folder / "reports.json").unlink()


def torn_reports(folder):
    text = json.dumps([{"server_round": 1, "no_such_figure": 2}])
    (folder / "reports.json").write_text(text)


@pytest.mark.parametrize("damage", [shortened, emptied, without_reports, torn_reports])
def test_a_damaged_checkpoint_is_an_error_and_the_one_before_helps(damage, tmp_path):
    make("d4s", tmp_path, keep_checkpoints=0).start(grid_of("d4s"), num_rounds=2)
    damage(tmp_path)
    before = contents(tmp_path)

    with pytest.raises(CheckpointError, match="Delete the file to go on from"):
        make("d4s", tmp_path).start(grid_of("d4s"), num_rounds=3)
    assert contents(tmp_path) == before

    if damage in (shortened, emptied):
        (tmp_path / "round-00002.safetensors").unlink()
        server = make("d4s", tmp_path)
        server.start(grid_of("d4s"), num_rounds=2)
        assert [report.server_round for report in server.reports] == [1, 2]
