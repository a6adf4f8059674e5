"""Sessions end to the last grandchild, also those that left the process group."""

import os
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

# Starts a child in a session of its own, as Flower's SuperLink does, and stays.
STAYING = """
import subprocess, time
subprocess.Popen(["sleep", "600"], start_new_session=True)
print("started", flush=True)
time.sleep(600)
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


def test_a_session_that_a_member_has_started_is_ended():
    leader = subprocess.Popen(
        [sys.executable, "-c", STAYING], stdout=subprocess.PIPE, start_new_session=True
    )
    assert leader.stdout.readline() == b"started\n"
    child = next(pid for pid in members(leader.pid) if pid != leader.pid)
    assert os.getsid(child) == child

    end_session(leader.pid)

    leader.wait(5)
    assert members(child) == []
    leader.stdout.close()


def test_other_processes_are_left_alone():
    other = subprocess.Popen(["sleep", "600"], start_new_session=True)
    own = subprocess.Popen(["sleep", "600"], start_new_session=True)

    end_session(own.pid)

    assert own.wait(5) < 0
    assert other.poll() is None
    end_session(other.pid)
    other.wait(5)
