"""Read raw records from a file or from the Hugging Face hub."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets

from flwr_collabedit.errors import ConfigurationError, RequestFormatError, shorten


def iterate_records(source: str | Path, split: str | None) -> Iterable[Any]:
    """Return the raw records of a file, or of a data set on the hub.

    Parameters
    ----------
    source : str or Path
        A ``.json`` or ``.jsonl`` file, or else a hub id.
    split : str or None
        Of a hub data set; ``None`` takes the only one. A file has none.

    Raises
    ------
    RequestFormatError
        If a file is not JSON in the form that its name says. A ``.jsonl`` file is
        parsed while it is read, so there the error comes at the line.
    ConfigurationError
        If the source or the split cannot be found.

    Notes
    -----
    Files are parsed as plain JSON and not by the JSON builder of ``datasets``, which
    turns answers that look like dates into timestamps and leaves a copy of the
    (private) facts in the user's cache.
    """
    path = Path(source)
    if path.suffix not in (".json", ".jsonl"):
        return _load_from_hub(str(source), split)
    if split is not None:
        raise ConfigurationError(
            f"expected no split for the file {str(source)!r}, found {split!r}; a file "
            f"has no splits"
        )
    if not path.is_file():
        raise ConfigurationError(
            f"expected a file at {str(path.absolute())!r}, found none"
        )
    return _parse_lines(path) if path.suffix == ".jsonl" else _parse_list(path)


def _parse_list(path: Path) -> list[Any]:
    try:
        records = json.loads(path.read_bytes())
    except ValueError as error:
        raise RequestFormatError(f"{path}: expected JSON, found {error}") from error
    if not isinstance(records, list):
        raise RequestFormatError(
            f"{path}: expected a list of records, found {type(records).__name__}; "
            f"a file with one record a line is to be named .jsonl"
        )
    return records


def _parse_lines(path: Path) -> Iterator[Any]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except ValueError as error:
                raise RequestFormatError(
                    f"{path}, line {number}: expected JSON, found {error}"
                ) from error


def _load_from_hub(name: str, split: str | None) -> Iterable[Any]:
    try:
        found: Any = datasets.load_dataset(name, split=split)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"expected a .json or .jsonl file or the id of a data set on the hub, "
            f"found {name!r}: {error}"
        ) from error
    splits: dict[Any, Iterable[Any]] = (
        found if isinstance(found, datasets.DatasetDict) else {split: found}
    )
    if len(splits) != 1:
        raise ConfigurationError(
            f"expected the name of a split of {name!r}, found none; choose one of "
            f"{shorten(splits)}"
        )
    (records,) = splits.values()
    return records
