"""Ending what a process started, to the last grandchild.

Ray's processes leave the process group of the one that starts them and outlive it, but
stay in its session. So a process that leads a session is ended with all its members.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PATIENCE_S = 10.0
_POLL_S = 0.1


def end_session(leader: int) -> None:
    """End every process of the session that this process leads, or led.

    They get SIGTERM first, and what is left after ten seconds SIGKILL. Without
    ``/proc``, the members of the leader's process group stand for the session.
    """
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, sign)
        for member in members(leader):
            with suppress(ProcessLookupError):
                os.kill(member, sign)
        end = time.monotonic() + _PATIENCE_S
        while any(members(leader)) and time.monotonic() < end:
            time.sleep(_POLL_S)


def members(leader: int) -> Iterator[int]:
    """Yield the processes of a session that have not ended."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text(encoding="utf-8")
        except OSError:  # it has just ended
            continue
        # The name, in brackets, may hold spaces; state, parent, group, session follow.
        state, _, _, session = text.rpartition(")")[2].split()[:4]
        if int(session) == leader and state not in "ZX":
            yield int(stat.parent.name)
