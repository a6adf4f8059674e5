"""The demonstration: its verdict, and once as a whole."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from deployment.demo import TOLERANCE, wrong
from deployment.outcome import WeightGap
from deployment.processes import Federation, Started

ROOT = Path(__file__).resolve().parents[2]
EQUAL = WeightGap("a", 0.0, True)


def test_nothing_is_wrong_with_equal_weights_and_all_ended(tmp_path):
    gaps = [EQUAL, WeightGap("b", TOLERANCE, False)]

    assert wrong(gaps, Federation(tmp_path), 3, 3) == []


@pytest.mark.parametrize("gap", [1.01 * TOLERANCE, float("nan")])
def test_one_gap_too_large_is_wrong(tmp_path, gap):
    gaps = [EQUAL, WeightGap("b", gap, False)]

    [problem] = wrong(gaps, Federation(tmp_path), 3, 3)

    assert problem.startswith("b differs by")


def test_a_node_too_many_is_wrong(tmp_path):
    assert wrong([EQUAL], Federation(tmp_path), 4, 3) == [
        "Expected 3 SuperNodes, found 4."
    ]


def test_a_process_that_runs_on_is_wrong(tmp_path):
    federation = Federation(tmp_path)
    other = subprocess.Popen(["sleep", "600"], env={"FLWR_HOME": str(tmp_path / "a")})

    try:
        # An instant after a program starts, its environment is not to be seen yet.
        deadline = time.monotonic() + 10
        while other.pid not in federation.left_over() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert str(other.pid) in wrong([EQUAL], federation, 3, 3)[0]
    finally:
        other.kill()
        other.wait()


def test_a_stranger_must_have_been_turned_away(tmp_path):
    federation, log = Federation(tmp_path), tmp_path / "process.log"
    federation.started.append(Started("SuperNode stranger", 2**22 + 1, 1, log))
    log.write_text("WARNING : Connection attempt failed, retrying in 3 seconds\n")
    assert wrong([EQUAL], federation, 3, 3) == []

    log.write_text("INFO : SuperNode ID: 1\n")

    assert "turned away" in wrong([EQUAL], federation, 3, 3)[0]


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--insecure"], []], ids=["insecure", "tls"])
def test_a_deployment_gives_the_weights_of_the_simulation(options, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "deployment.demo", "--edits", "6"),
            *("--out", str(tmp_path / "demo"), *options),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("equal") == 3
    assert done.stdout.count("ended") == (4 if options else 5)
    assert Federation(tmp_path / "demo" / "flower").left_over() == []
