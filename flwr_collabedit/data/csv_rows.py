"""Rows of a CSV file as records: a header, then a record a row.

Written for what spreadsheets save: with a byte-order mark or without, with commas,
semicolons or tabs between cells, with spaces around them.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from flwr_collabedit.errors import RequestFormatError, shorten

DELIMITERS = ",;\t"


class Row(NamedTuple):
    """The cells that are not empty under their column names, or what is wrong."""

    cells: dict[str, str]
    line: int
    error: str = ""


def iterate_rows(path: Path) -> Iterator[Row]:
    r"""Return the rows of a file in UTF-8; rows without any text are passed over.

    The delimiter is the one of ``,``, ``;`` and tab that gives the header most columns.
    Column names and cells lose the white space around them; names are in lower case.
    Cells that hold the delimiter, a quotation mark or a line break stand in double
    quotation marks.

    Raises
    ------
    RequestFormatError
        If the file is not UTF-8, or its header has one column only, an empty name or a
        name twice. A row with more cells than the header is a row with an error, and so
        is one with an unclosed quotation mark, after which nothing can be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestFormatError(
            f"{path}: expected text in UTF-8, found {error}; save it as 'CSV UTF-8'"
        ) from error
    lines = text.splitlines(keepends=True)
    if not text.strip():
        return
    reader = csv.reader(
        lines, delimiter=_delimiter(path, lines), skipinitialspace=True, strict=True
    )
    names = _names(path, next(reader))
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row({}, line, f"expected cells in CSV, found {error}; {_QUOTES}")
            return
        if any(cell.strip() for cell in cells):
            yield _row(names, cells, line)


_QUOTES = (
    "put a cell with a delimiter in it in quotation marks, and write a quotation mark "
    "in such a cell twice"
)


def _delimiter(path: Path, lines: list[str]) -> str:
    def columns(delimiter: str) -> int:
        return len(next(csv.reader(lines, delimiter=delimiter)))

    best = max(DELIMITERS, key=columns)
    if columns(best) == 1:
        raise RequestFormatError(
            f"{path}: expected a header of columns with a comma, semicolon or tab "
            f"between them, found {lines[0].strip()!r}"
        )
    return best


def _names(path: Path, header: list[str]) -> list[str]:
    names = [name.strip().casefold() for name in header]
    while names and not names[-1]:  # of trailing delimiters
        names.pop()
    if not all(names) or len(set(names)) != len(names):
        raise RequestFormatError(
            f"{path}: expected a header with a different name for each column, found "
            f"{shorten(names, 12)}"
        )
    return names


def _row(names: list[str], cells: list[str], line: int) -> Row:
    while len(cells) > len(names) and not cells[-1].strip():
        cells = cells[:-1]
    if len(cells) > len(names):
        return Row(
            {},
            line,
            f"expected {len(names)} cells as in the header, found {len(cells)}; "
            + _QUOTES,
        )
    filled = zip(names, (cell.strip() for cell in cells), strict=False)
    return Row({name: cell for name, cell in filled if cell}, line)
