"""Any text for second moments, through the ``datasets`` library."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from flwr_collabedit.errors import ConfigurationError

_BUILDERS = {".txt": "text", ".json": "json", ".jsonl": "json"}


def load_texts(source: str, *, field: str = "text") -> Iterator[str]:
    """Return the documents of a file or hub data set, in order, empty ones left out.

    Parameters
    ----------
    source : str
        A ``.txt`` file (one document a line), a ``.json`` or ``.jsonl`` file, or a hub
        id, with its configuration behind a colon where it has several
        (``wikitext:wikitext-103-raw-v1``).
    field : str
        The column that holds the text.

    Raises
    ------
    ConfigurationError
        If there is no such file or data set, it cannot be read, or it has no such
        column of text.
    """
    path = Path(source)
    if path.suffix in _BUILDERS and not path.is_file():
        raise ConfigurationError(f"Expected a text file at {source!r}, found none.")
    rows = _rows(source)
    columns = rows.column_names
    if columns is not None and field not in columns:
        raise ConfigurationError(
            f"Expected a column {field!r} in {source!r}, found {columns}."
        )
    return _documents(rows, field, source)


def _rows(source: str) -> Any:
    # Slow, and most commands read no text.
    import datasets
    from datasets.exceptions import DatasetGenerationError

    path = Path(source)
    try:
        if path.suffix in _BUILDERS:
            return datasets.load_dataset(
                _BUILDERS[path.suffix], data_files=str(path), split="train"
            )
        name, _, configuration = source.partition(":")
        return datasets.load_dataset(
            name, configuration or None, split="train", streaming=True
        )
    except (OSError, ValueError, DatasetGenerationError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ConfigurationError(
            f"Expected text in a .txt, .json or .jsonl file or in a data set of the "
            f"hub, found {source!r}: {reason}."
        ) from error


def _documents(rows: Iterable[Any], field: str, source: str) -> Iterator[str]:
    for row in rows:
        text = row[field]
        if not isinstance(text, str):
            raise ConfigurationError(
                f"Expected text in column {field!r} of {source!r}, found {text!r}."
            )
        if text.strip():
            yield text
