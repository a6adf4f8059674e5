"""Read keys so that an interrupted reading goes on, with the same result to the bit."""

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path

import torch

from flwr_collabedit.algebra.second_moment import SecondMoment
from flwr_collabedit.editors.key_reading import Goal, read_keys
from flwr_collabedit.editors.key_sums import KeySums
from flwr_collabedit.editors.second_moment_source import SecondMomentSource
from flwr_collabedit.errors import SecondMomentError
from flwr_collabedit.models.language_model import LanguageModel

Progress = Callable[[int, int], None]

# How much is read, and what becomes of the sums, are no part of what they are.
_OF_THE_GOAL = {"num_samples", "multiple", "shrink"}
_LARGEST_WRITING_SHARE = 0.05


class ResumableReading:
    """Reads keys; the sums so far are in a file now and then, and when it is stopped.

    Parameters
    ----------
    lm : LanguageModel
        The unedited model.
    sources : mapping of int to SecondMomentSource
        By layer, of one call of `second_moment_sources`.
    folder : Path or None
        Where the unfinished sums are kept; ``None`` for nowhere.
    rows_per_batch : int
        Documents run at once. Another number goes on as well, but rounds differently.
    save_every_s : float
        Seconds of reading between two writings; more where writing takes long, so that
        it costs a twentieth of the time at most.
    """

    def __init__(
        self,
        lm: LanguageModel,
        sources: Mapping[int, SecondMomentSource],
        folder: Path | None,
        rows_per_batch: int,
        save_every_s: float,
    ) -> None:
        self._lm, self._sources = lm, sources
        self._first = next(iter(sources.values()))
        self._rows_per_batch, self._save_every_s = rows_per_batch, save_every_s
        self._path = None if folder is None else folder / _name(sources)
        widest = max(source.d_key for source in sources.values())
        self._goal = Goal(
            num_documents=self._first.num_samples,
            num_tokens=math.ceil(self._first.multiple * widest),
        )

    def run(self, texts: Iterable[str], progress: Progress | None) -> KeySums:
        """Return the sums at the goal.

        Raises
        ------
        SecondMomentError
            If ``texts`` end early; the sums stay for a call that asks for less.
        """
        sums = self._start()
        if progress is not None:
            progress(*self._goal.progress(sums))
        batches = read_keys(
            self._lm,
            texts,
            sums,
            self._goal,
            max_length=self._first.max_length,
            dtype=getattr(torch, self._first.dtype),
            rows_per_batch=self._rows_per_batch,
        )
        due = time.monotonic() + self._save_every_s
        try:
            for _ in batches:
                if progress is not None:
                    progress(*self._goal.progress(sums))
                if time.monotonic() >= due:
                    pause = self._save(sums)
                    due = time.monotonic() + pause
        except (KeyboardInterrupt, SecondMomentError, torch.OutOfMemoryError):
            if sums.whole and sums.num_documents:
                self._save(sums)
            raise
        return sums

    def forget(self) -> None:
        """Remove the unfinished sums: they are finished and have their files."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _start(self) -> KeySums:
        """Return the sums of the file, if they lead to the goal, or empty ones."""
        device = self._lm.device
        if self._path is not None and self._path.exists():
            sums = KeySums.load(self._path, list(self._sources), device)
            if min(self._goal.left(sums)) >= 0:
                return sums
        return KeySums(
            {
                layer: SecondMoment(source.d_key, device=device)
                for layer, source in self._sources.items()
            }
        )

    def _save(self, sums: KeySums) -> float:
        """Write the sums; return for how many seconds to read until the next time."""
        if self._path is None:
            return self._save_every_s
        began = time.monotonic()
        sums.save(self._path)
        took = time.monotonic() - began
        return max(self._save_every_s, took / _LARGEST_WRITING_SHARE)


def _name(sources: Mapping[int, SecondMomentSource]) -> str:
    """Return a file name that differs where the sums do."""
    cards = [one.model_dump(exclude=_OF_THE_GOAL) for one in sources.values()]
    digest = sha256(json.dumps(cards, sort_keys=True).encode()).hexdigest()
    return f"{digest[:16]}.unfinished"
