"""Progress of long work as log lines, which is what Flower shows of its processes."""

import time
from logging import INFO

from flwr.common import log


class ProgressLog:
    """Logs how much is done, at most once every few seconds and not for short work.

    Parameters
    ----------
    label : str
        What is being done and by whom.
    total : int
        How much there is to do.
    every_s : float
        Seconds between two lines, and before the first.
    """

    def __init__(self, label: str, total: int, *, every_s: float = 10.0) -> None:
        self._label, self._total, self._every_s = label, total, every_s
        self._began = self._last = time.monotonic()

    def __call__(self, done: int, total: int | None = None) -> None:
        """Note that ``done`` is done; ``total`` replaces what was expected."""
        now = time.monotonic()
        if now - self._last < self._every_s:
            return
        self._last = now
        total = self._total if total is None else total
        left = (now - self._began) * (total - done) / max(done, 1)
        log(INFO, "%s: %s of %s, about %.0f s left", self._label, done, total, left)
