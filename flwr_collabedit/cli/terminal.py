"""What all commands do alike: notes, progress, results, errors and exit codes."""

import errno
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from flwr_collabedit.errors import CollabEditError

NO_SPACE = "No space left on device"
_REFUSED = {
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
}


class ExitCode(IntEnum):
    """What a command's end tells a script; 0 is success."""

    FOUND_WRONG = 1
    """The command did its work, and something that it was to check is wrong."""
    MISTAKE = 2
    """A setting, a file or a model that cannot be used; nothing was written."""
    EXHAUSTED = 3
    """The machine has too little memory or disk space."""
    INTERRUPTED = 130


class Terminal:
    """Notes and progress on standard error, results on standard output.

    Parameters
    ----------
    as_json : bool
        Print the result as one JSON object, and nothing else on standard output.
    """

    def __init__(self, as_json: bool = False) -> None:
        self._as_json = as_json
        self._notes = Console(stderr=True)
        self._out = Console()

    def note(self, text: str, style: str = "dim") -> None:
        """Say what is going on."""
        self._notes.print(Text(text, style=style), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Say what may surprise."""
        self.note(text, "yellow")

    def result(self, value: Mapping[str, Any], *shown: RenderableType) -> None:
        """Print what the command was called for.

        Parameters
        ----------
        value : mapping
            For ``--json``.
        *shown : renderable
            The same for a reader. Text is taken as it is, not as markup: it may hold a
            path or a prompt with brackets.
        """
        if self._as_json:
            print(json.dumps(value, indent=2))  # noqa: T201
            return
        for part in shown:
            is_text = isinstance(part, str | Text)
            self._out.print(
                Text(part) if isinstance(part, str) else part, soft_wrap=is_text
            )

    @contextmanager
    def progress(
        self, description: str, total: int | None = None
    ) -> Iterator[Callable[..., None]]:
        """Show a bar while the block lasts.

        Gives a callable that takes how much is done and, where that becomes known later
        or changes, of how much: the library's ``progress`` parameters take it.
        """
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._notes,
            transient=True,
        )
        with bar:
            task = bar.add_task(description, total=total)

            def update(done: int, of: int | None = None) -> None:
                # None leaves the total as it is.
                bar.update(task, completed=done, total=of)

            yield update


@contextmanager
def terminal(as_json: bool = False) -> Iterator[Terminal]:
    """Give a command its terminal, and tell a user's mistake in a sentence.

    Errors that are raised on purpose, a full disk, exhausted memory and Ctrl-C end the
    program with an `ExitCode`; with ``as_json`` standard output then holds
    ``{"error": {"type": ..., "message": ...}}``. Any other error is ours and keeps its
    traceback.
    """
    told = Terminal(as_json)
    try:
        yield told
    except CollabEditError as error:
        code = ExitCode.EXHAUSTED if NO_SPACE in str(error) else ExitCode.MISTAKE
        raise _ended(told, type(error).__name__, str(error), code) from None
    except Exception as error:
        code, text = _of_the_system(error)
        if not text:
            raise
        raise _ended(told, type(error).__name__, text, code) from None
    except KeyboardInterrupt:
        text = "Interrupted; what was finished is kept."
        raise _ended(told, "Interrupted", text, ExitCode.INTERRUPTED) from None


def _of_the_system(error: Exception) -> tuple[ExitCode, str]:
    """Return what to tell of a machine's refusal; no text of another error."""
    reason = str(error)
    # By name, since importing torch for its error would slow down every --help.
    if type(error).__name__ == "OutOfMemoryError":
        text = (
            f"{reason.split('. ')[0]}. Use fewer edits at a time (edits_per_batch), "
            "weights in half precision (--dtype bfloat16), more GPUs (--device "
            "balanced) or --device cpu."
        )
        return ExitCode.EXHAUSTED, text
    if NO_SPACE in reason or getattr(error, "errno", None) == errno.EDQUOT:
        text = (
            f"{reason}. Nothing half-written was left; free some space or write to "
            "another disk."
        )
        return ExitCode.EXHAUSTED, text
    if getattr(error, "errno", None) in _REFUSED:
        return (
            ExitCode.MISTAKE,
            f"{reason}. Choose a place where you may read or write.",
        )
    return ExitCode.MISTAKE, ""


def _ended(told: Terminal, kind: str, text: str, code: ExitCode) -> typer.Exit:
    told.note(f"{kind}: {text}", "red")
    if told._as_json:
        told.result({"error": {"type": kind, "message": text}})
    return typer.Exit(code)
