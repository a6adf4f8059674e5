"""Sessions end to the last grandchild, also those that left the process group."""

import subprocess
import sys
import time

from simulations.sessions import end_session, members

# Starts a child in a process group of its own, tells that it did, and ends.
LEAVING = """
import subprocess, sys
subprocess.Popen(["sleep", "600"], process_group=0)
print("started", flush=True)
"""


def test_a_grandchild_that_left_the_group_of_a_dead_leader_is_ended():
    leader = subprocess.Popen(
        [sys.executable, "-c", LEAVING], stdout=subprocess.PIPE, start_new_session=True
    )
    assert leader.stdout.readline() == b"started\n"
    leader.wait()
    assert len(list(members(leader.pid))) == 1

    began = time.monotonic()
    end_session(leader.pid)

    assert list(members(leader.pid)) == []
    assert time.monotonic() - began < 5
    leader.stdout.close()


def test_other_processes_are_left_alone():
    other = subprocess.Popen(["sleep", "600"], start_new_session=True)
    own = subprocess.Popen(["sleep", "600"], start_new_session=True)

    end_session(own.pid)

    assert own.wait(5) < 0
    assert other.poll() is None
    end_session(other.pid)
    other.wait(5)
