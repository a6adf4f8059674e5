"""Any text for second moments, through the ``datasets`` library."""

from collections.abc import Iterator
from pathlib import Path

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
        If the file's kind is not known or there is no such column.
    """
    import datasets  # slow, and most commands read no text

    path = Path(source)
    if path.suffix in _BUILDERS:
        if not path.is_file():
            raise ConfigurationError(f"Expected a text file at {source!r}, found none.")
        rows = datasets.load_dataset(
            _BUILDERS[path.suffix], data_files=str(path), split="train"
        )
    else:
        name, _, configuration = source.partition(":")
        rows = datasets.load_dataset(
            name, configuration or None, split="train", streaming=True
        )
    columns = rows.column_names
    if columns is not None and field not in columns:
        raise ConfigurationError(
            f"Expected a column {field!r} in {source!r}, found {columns}."
        )
    return (row[field] for row in rows if row[field].strip())
