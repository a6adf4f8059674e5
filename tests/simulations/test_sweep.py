"""Sweeps: finished cells stay finished, failures are kept, interrupts end processes."""

import csv
import time
from pathlib import Path

import fake_runs
import pytest
from pyarrow import parquet

from simulations.cell_process import cell_processes
from simulations.sweep import run_cells
from simulations.sweep_file import read_sweep
from simulations.sweep_progress import State
from simulations.sweep_results import write_results

SWEEP = """
[fixed]
num-rounds = 1
[axes]
num-edits = [10, 20]
seed = [0, 1]
"""


@pytest.fixture
def cells(tmp_path):
    (tmp_path / "sweep.toml").write_text(SWEEP, encoding="utf-8")
    return read_sweep(tmp_path / "sweep.toml", tmp_path / "out")


def run_all(cells, run, jobs=2, listen=None):
    states = {}

    def notify(cell, state):
        states[cell.name] = state
        if listen:
            listen(cell, state)

    context = cell_processes(preload=False)
    run_cells(cells, run, context, jobs=jobs, notify=notify)
    return [states[cell.name] for cell in cells]


def times_run(cell):
    return (cell.folder / "runs").read_text().count("run")


def test_every_cell_runs_once(cells):
    assert run_all(cells, fake_runs.succeed) == [State.FINISHED] * 4
    assert [times_run(cell) for cell in cells] == [1] * 4


def test_finished_cells_are_skipped_and_the_rest_is_run(cells):
    run_all(cells[:3], fake_runs.succeed)

    states = run_all(cells, fake_runs.succeed)

    assert states == [State.SKIPPED] * 3 + [State.FINISHED]
    assert [times_run(cell) for cell in cells] == [1] * 4


def test_a_folder_with_results_of_other_settings_is_run_again(cells):
    run_all(cells[:1], fake_runs.succeed)
    summary = cells[0].folder / "summary.json"
    summary.write_text(summary.read_text().replace('"num-edits": 10', '"num-edits": 9'))

    assert run_all(cells[:1], fake_runs.succeed) == [State.FINISHED]
    assert times_run(cells[0]) == 2


def test_an_interrupted_sweep_gives_the_table_of_an_uninterrupted_one(cells, tmp_path):
    run_all(cells[::2], fake_runs.succeed)
    run_all(cells, fake_runs.succeed)
    write_results(cells, tmp_path)
    resumed = (tmp_path / "results.csv").read_bytes()
    for cell in cells:
        (cell.folder / "summary.json").unlink()

    run_all(cells, fake_runs.succeed)
    write_results(cells, tmp_path)

    assert (tmp_path / "results.csv").read_bytes() == resumed


def test_a_failed_cell_keeps_its_reason_and_does_not_stop_the_rest(cells):
    states = run_all(cells, fake_runs.fail_with_seed_one)

    assert states == [State.FINISHED, State.FAILED] * 2
    reason = (cells[1].folder / "error.txt").read_text()
    assert reason.startswith("ValueError: seed 1 cannot be run")
    assert "some output" in (cells[1].folder / "run.log").read_text()


def test_a_failed_cell_is_tried_again_and_its_reason_removed(cells):
    run_all(cells, fake_runs.fail_with_seed_one)

    assert run_all(cells, fake_runs.succeed)[1] is State.FINISHED
    assert not (cells[1].folder / "error.txt").exists()


def test_a_cell_whose_process_dies_is_failed_and_not_the_sweep(cells):
    states = run_all(cells, fake_runs.die_with_seed_one)

    assert states == [State.FINISHED, State.FAILED] * 2
    reason = (cells[1].folder / "error.txt").read_text()
    assert "ended by SIGKILL" in reason
    assert "last words" in reason


def test_a_run_that_ends_without_results_is_failed(cells):
    assert run_all(cells[:1], fake_runs.end_without_results) == [State.FAILED]
    assert "the server stopped" in (cells[0].folder / "error.txt").read_text()


def test_a_reason_does_not_quote_the_log_of_an_earlier_try(cells):
    run_all(cells[:1], fake_runs.end_without_results)

    run_all(cells[:1], fake_runs.die_at_once)

    assert "the server stopped" not in (cells[0].folder / "error.txt").read_text()


def is_alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().split()[2] != "Z"


def test_an_interrupt_ends_the_processes_and_keeps_finished_cells(cells):
    def interrupt(cell, state):
        # Seed 1 runs beside it; wait until it has started a process of its own.
        if state is State.FINISHED:
            pids = cells[1].folder / "pids"
            end = time.monotonic() + 20
            while not (pids.exists() and pids.read_text()):
                assert time.monotonic() < end
                time.sleep(0.05)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all(cells, fake_runs.hang_with_seed_one, listen=interrupt)

    pids = (cells[1].folder / "pids").read_text().split()
    assert not any(map(is_alive, pids))
    assert (cells[0].folder / "summary.json").exists()
    assert not (cells[1].folder / "summary.json").exists()


def test_results_are_one_row_a_finished_cell_in_the_sweeps_order(cells, tmp_path):
    run_all(cells, fake_runs.fail_with_seed_one)

    write_results(cells, tmp_path)

    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["cell"] for row in rows] == [cells[0].name, cells[2].name]
    expected = {"num-edits": "20", "Score": "70.0", "pooled_Score": "71.0"}
    expected |= {"gap_to_pooled": "3e-07", "upload_bytes_per_client": "200"}
    assert expected.items() <= rows[1].items()
    table = parquet.read_table(tmp_path / "results.parquet")
    assert table.column_names == list(rows[0])
    assert table["num-edits"].to_pylist() == [10, 20]
