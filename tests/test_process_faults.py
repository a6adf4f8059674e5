"""Killed processes: a run goes on with the others, or fails and can be resumed."""

import signal
import subprocess
import time
from pathlib import Path

import pytest
from process_faults import ACTOR, Command, _reason, cases

from simulations.sessions import end_session, members


@pytest.mark.slow
@pytest.mark.parametrize("name", cases(Path()))
def test_a_killed_process_costs_the_others_nothing(name, tmp_path):
    row = cases(tmp_path)[name]()

    assert row.is_good, row


@pytest.fixture
def runs(tmp_path):
    """Two runs, each a shell and one process that calls itself an actor of Ray's."""
    script = f"bash -c 'exec -a {ACTOR}.run sleep 600' ; sleep 600"
    started = [
        subprocess.Popen(["bash", "-c", script], start_new_session=True)
        for _ in range(2)
    ]
    yield [Command(process, tmp_path / "log") for process in started]
    for process in started:
        end_session(process.pid)
        process.wait()


def actors(run: Command) -> list[int]:
    return [p for p in members(run.process.pid) if _line(p).startswith(ACTOR)]


def _line(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:  # it has just ended
        return ""


def wait_until(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_only_the_named_process_of_the_own_run_is_killed(runs):
    own, other = runs
    wait_until(lambda: actors(own) and actors(other))

    own.kill(ACTOR)

    wait_until(lambda: not actors(own))
    assert actors(other)
    assert own.process.poll() is None


def test_a_run_without_such_a_process_is_told(runs):
    with pytest.raises(AssertionError, match="No process 'flwr-simulation'"):
        runs[0].kill("flwr-simulation")


def test_the_exit_code_of_a_killed_run_is_its_signals(runs):
    runs[0].process.kill()

    assert runs[0].exit_code() == str(-signal.SIGKILL)


def test_a_logs_reason_is_the_strategys_or_its_last_words():
    told = (
        "Round 2, a: expected at least 3 valid replies, found 2. Left out: ('b', 'c')"
    )

    assert _reason(f"x\n{told}. Mend these clients\nlast\n") == told[12:]
    assert _reason("x\n\nIt ended. Its finished rounds are kept\n \n") == "It ended."
