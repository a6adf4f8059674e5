"""Read raw records from a file or from the Hugging Face hub."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub

from flwr_collabedit.data.csv_rows import iterate_rows
from flwr_collabedit.errors import ConfigurationError, RequestFormatError, shorten


class RawRecord(NamedTuple):
    """One record as it was found.

    Attributes
    ----------
    value : Any
        Parsed JSON, a row's cells under their column names, or a row of the hub's.
    line : int or None
        Where it begins in a file of lines, from 1.
    error : str
        Why it could not be parsed; empty where it could.
    """

    value: Any
    line: int | None = None
    error: str = ""


def iterate_records(source: str | Path, split: str | None) -> Iterable[RawRecord]:
    """Return the raw records of a file, or of a data set on the hub.

    Parameters
    ----------
    source : str or Path
        A ``.json``, ``.jsonl``, ``.csv`` or ``.tsv`` file; a hub id; or a hub id, a
        colon and the path of such a file in it
        (``zjunlp/KnowEdit:benchmark/wiki_recent/recent_test.json``).
    split : str or None
        Of a hub data set; ``None`` takes the only one. A file has none.

    Raises
    ------
    RequestFormatError
        If a file as a whole is not what its name says. A line that cannot be parsed is
        a record with an error.
    ConfigurationError
        If the source or the split cannot be found.

    Notes
    -----
    Files are parsed as plain JSON and not by the JSON builder of ``datasets``, which
    turns answers that look like dates into timestamps, wants one type in a field, and
    leaves a copy of the (private) facts in the user's cache.
    """
    path = Path(source)
    parse = _parser(path)
    if parse is None and path.is_file():
        raise ConfigurationError(
            f"expected a file named {_endings()}, found {str(source)!r}; name it by "
            f"what it holds"
        )
    if parse is None:
        return _load_from_hub(str(source), split)
    if split is not None:
        raise ConfigurationError(
            f"expected no split for the file {str(source)!r}, found {split!r}; a file "
            f"has no splits"
        )
    if not path.is_file() and ":" in str(source):
        path = _download(str(source))
    if not path.is_file():
        raise ConfigurationError(
            f"expected a file at {str(path.absolute())!r}, found none"
        )
    return parse(path)


def _parser(path: Path) -> Callable[[Path], Iterable[RawRecord]] | None:
    return _PARSERS.get(path.suffix.lower())


def _parse_list(path: Path) -> Iterable[RawRecord]:
    try:
        records = json.loads(path.read_bytes())
    except ValueError as error:
        raise RequestFormatError(f"{path}: expected JSON, found {error}") from error
    if not isinstance(records, list):
        raise RequestFormatError(
            f"{path}: expected a list of records, found {type(records).__name__}; "
            f"a file with one record a line is to be named .jsonl"
        )
    return [RawRecord(record) for record in records]


def _parse_lines(path: Path) -> Iterator[RawRecord]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield RawRecord(json.loads(line), number)
            except ValueError as error:
                yield RawRecord(None, number, f"expected JSON, found {error}")


def _parse_rows(path: Path) -> Iterator[RawRecord]:
    return (RawRecord(*row) for row in iterate_rows(path))


_PARSERS: dict[str, Callable[[Path], Iterable[RawRecord]]] = {
    ".json": _parse_list,
    ".jsonl": _parse_lines,
    ".csv": _parse_rows,
    ".tsv": _parse_rows,
}


def _load_from_hub(name: str, split: str | None) -> Iterable[RawRecord]:
    import datasets  # slow, and files do not need it

    try:
        found: Any = datasets.load_dataset(name, split=split)
    except (OSError, ValueError) as error:
        raise _not_found(name, error) from error
    splits: dict[Any, Iterable[Any]] = (
        found if isinstance(found, datasets.DatasetDict) else {split: found}
    )
    if len(splits) != 1:
        raise ConfigurationError(
            f"expected the name of a split of {name!r}, found none; choose one of "
            f"{shorten(splits)}"
        )
    (records,) = splits.values()
    return (RawRecord(record) for record in records)


def _download(source: str) -> Path:
    """Return the cached copy of one file of a hub data set."""
    name, _, file = source.partition(":")
    try:
        return Path(huggingface_hub.hf_hub_download(name, file, repo_type="dataset"))
    except (OSError, ValueError) as error:
        raise _not_found(source, error) from error


def _not_found(source: str, error: Exception) -> ConfigurationError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ConfigurationError(
        f"expected a file named {_endings()} or the id of a data set on the hub, found "
        f"{source!r}: {reason}"
    )


def _endings() -> str:
    *rest, last = _PARSERS
    return ", ".join(rest) + f" or {last}"
