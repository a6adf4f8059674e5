"""Ending what a process started, to the last grandchild.

Flower's SuperLink starts a process that leads a session of its own, and Ray's processes
in it outlive the one that starts them. Whole sessions are ended for that reason.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_PATIENCE_S = 10.0
_POLL_S = 0.1


def end_session(leader: int) -> None:
    """End the session that a process leads, or led, and those that it has started.

    They get SIGTERM first, and what is left after ten seconds SIGKILL. Without
    ``/proc``, the leader's process group stands for the sessions.
    """
    sessions = {leader, *_processes_of({leader}).values()}
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, sign)
        for member in _processes_of(sessions):
            with suppress(ProcessLookupError):
                os.kill(member, sign)
        end = time.monotonic() + _PATIENCE_S
        while _processes_of(sessions) and time.monotonic() < end:
            time.sleep(_POLL_S)


def members(leader: int) -> list[int]:
    """Return the processes of a session and of those that it started, if they live."""
    return list(_processes_of({leader}))


def _processes_of(sessions: set[int]) -> dict[int, int]:
    """Return pid and session of the sessions' processes and of their descendants."""
    table = _process_table()
    found: dict[int, int] = {}
    while True:
        reached = sessions | set(found.values())
        more = {
            pid: session
            for pid, (parent, session) in table.items()
            if session in reached or parent in found
        }
        if more == found:
            return found
        found = more


def _process_table() -> dict[int, tuple[int, int]]:
    """Return parent and session of every process that has not ended."""
    table = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text(encoding="utf-8")
        except OSError:  # it has just ended
            continue
        # The name, in brackets, may hold spaces; state, parent, group, session follow.
        state, parent, _, session = text.rpartition(")")[2].split()[:4]
        if state not in "ZX":
            table[int(stat.parent.name)] = int(parent), int(session)
    return table
