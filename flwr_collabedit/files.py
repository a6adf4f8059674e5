"""Files and folders that are written whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from flwr_collabedit.errors import ConfigurationError, DiskSpaceError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a draft beside ``path`` to write; it takes the path's place at the end.

    Parents are made. If the block raises, the draft is removed and what was at ``path``
    stays. Processes that write the same path do not meet in one draft.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(path)
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a draft folder beside ``path``; it takes the path's name at the end.

    If the block raises, the draft is removed with all that is in it.

    Raises
    ------
    ConfigurationError
        If there is something at ``path`` already, other than an empty folder.
    """
    check_new_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(path)
    draft.mkdir()
    try:
        yield draft
        draft.replace(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def check_new_folder(path: Path) -> None:
    """Raise unless :func:`new_folder` can give ``path`` its name; ask before long work.

    Raises
    ------
    ConfigurationError
        If there is something at ``path`` already, other than an empty folder, or it
        cannot be written.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigurationError(
            f"Expected no file and no folder with content at '{path}', found one. "
            "Choose another name, or remove it."
        )
    check_writable(path.parent)


def check_writable(folder: Path) -> None:
    """Raise unless files can be written to a folder; it may still have to be made.

    Ask before long work whose result is to go there. Nothing is left behind.

    Raises
    ------
    ConfigurationError
        If they cannot, or there is a file of that name or above it.
    """
    nearest = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    try:
        with TemporaryDirectory(prefix=".draft-", dir=nearest):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"Expected an output folder that can be written to, found '{folder}': "
            f"{error.strerror}. Choose another one."
        ) from None


def check_space(folder: Path, num_bytes: int) -> None:
    """Raise unless the disk of an existing folder has room for ``num_bytes`` more.

    Raises
    ------
    DiskSpaceError
        If it has not.
    """
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise DiskSpaceError(
            f"No space left on device: expected {num_bytes / 1e6:,.1f} MB free at "
            f"'{folder}', found {free / 1e6:,.1f} MB. Free some space or write to "
            "another disk."
        )


def _draft(path: Path) -> Path:
    # The ending stays: some writers choose their format by it.
    return path.with_name(f".draft-{os.getpid()}-{path.name}")
