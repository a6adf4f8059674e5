"""A data set record by record: the cases of each, or why it cannot be read."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from flwr_collabedit.data.fields import Record
from flwr_collabedit.data.formats import (
    KNOWN_SOURCES,
    find_reader,
    guess_format,
)
from flwr_collabedit.data.record_source import RawRecord, iterate_records
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.data.zsre import ZsreTarget
from flwr_collabedit.errors import ConfigurationError, RequestFormatError

T = TypeVar("T")


@dataclass(frozen=True)
class ReadRecord:
    """What became of one record.

    Attributes
    ----------
    index : int
        Its place in the data set, from 0.
    line : int or None
        Where it begins in a file of lines, from 1.
    place : str
        Both, and its case id, in words.
    cases : tuple of EvaluationCase
        Its edits; several only in MQuAKE, none where there is an error.
    error : str
        Why it cannot be read, without its place; empty where it can.
    """

    index: int
    line: int | None
    place: str
    cases: tuple[EvaluationCase, ...]
    error: str = ""


@dataclass(frozen=True)
class DataSet:
    """All records of a source.

    Attributes
    ----------
    source : str
        What was read: the source of a short name.
    data_format : str
        The layout, given or guessed.
    is_guessed : bool
        Whether nobody named it.
    records : tuple of ReadRecord
        In the order of the source, at least one.
    """

    source: str
    data_format: str
    is_guessed: bool
    records: tuple[ReadRecord, ...]

    def cases(self) -> list[EvaluationCase]:
        """Return the cases of all records.

        Raises
        ------
        RequestFormatError
            At the first record that cannot be read: file, record, case and field.
        """
        for record in self.records:
            if record.error:
                raise RequestFormatError(
                    f"{self.source}, {record.place}: {record.error}"
                )
        return [case for record in self.records for case in record.cases]


def read_data_set(
    source: str | Path,
    *,
    data_format: str = "",
    split: str | None = None,
    limit: int | None = None,
    zsre_target: ZsreTarget = "answers",
) -> DataSet:
    """Return every record of a data set, those that cannot be read among them.

    Parameters
    ----------
    source, data_format, split, limit, zsre_target
        As for `flwr_collabedit.data.loading.load_cases`.

    Raises
    ------
    RequestFormatError
        If there is no record, the file as a whole cannot be read, or the format cannot
        be guessed.
    ConfigurationError
        If an option is unknown or the source cannot be found.
    """
    known = KNOWN_SOURCES.get(str(source))
    if known is not None and not Path(source).is_file():
        source, split = known.source, split or known.split
        data_format = data_format or known.data_format
    if data_format:
        find_reader(data_format, zsre_target=zsre_target)  # before any download
    raw = read_raw(source, split, limit)
    is_guessed = not data_format
    if is_guessed:
        data_format = _guess(source, raw)
    reader = find_reader(data_format, zsre_target=zsre_target)
    records: list[ReadRecord] = []
    seen: dict[int | str, int] = {}
    for index, found in enumerate(raw):
        error = ""
        cases: tuple[EvaluationCase, ...] = ()
        try:
            cases = tuple(parse_record(reader, found, index))
            _check_ids(cases, seen)
        except RequestFormatError as refusal:
            error, cases = str(refusal), ()
        seen |= {case.request.case_id: index for case in cases}
        records.append(
            ReadRecord(index, found.line, place_of(found, index), cases, error)
        )
    return DataSet(str(source), data_format, is_guessed, tuple(records))


def read_raw(
    source: str | Path, split: str | None, limit: int | None
) -> list[RawRecord]:
    """Return the first ``limit`` records of a source, at least one, or raise."""
    if limit is not None and limit < 1:
        raise ConfigurationError(f"expected limit of at least 1, found {limit}")
    raw = list(islice(iterate_records(source, split), limit))
    if not raw:
        raise RequestFormatError(f"{source}: expected at least one record, found none")
    return raw


def place_of(raw: RawRecord, index: int) -> str:
    """Return where a record is: its number, line and case id as far as known."""
    places = [f"line {raw.line}"] if raw.line is not None else []
    if isinstance(raw.value, dict) and raw.value.get("case_id") is not None:
        places.append(f"case_id {raw.value['case_id']!r}")
    return f"record {index}" + (f" ({', '.join(places)})" if places else "")


def parse_record(reader: Callable[[Record, int], T], raw: RawRecord, index: int) -> T:
    """Return what the reader makes of a record.

    Raises
    ------
    RequestFormatError
        If it cannot.
    """
    if raw.error:
        raise RequestFormatError(raw.error)
    if not isinstance(raw.value, dict):
        raise RequestFormatError(f"expected an object, found {raw.value!r}")
    remedy = "correct the record, or check that the data format is the right one"
    try:
        return reader(raw.value, index)
    except ValidationError as error:
        raise RequestFormatError(f"{_in_one_line(error)}; {remedy}") from error
    except RequestFormatError as error:
        raise RequestFormatError(f"{error}; {remedy}") from error


def _guess(source: str | Path, raw: Iterable[RawRecord]) -> str:
    """Return the format of the first record that is an object."""
    for record in raw:
        if not record.error and isinstance(record.value, dict):
            try:
                return guess_format(record.value)
            except RequestFormatError as error:
                raise RequestFormatError(f"{source}: {error}") from error
    first = next(iter(raw))
    raise RequestFormatError(
        f"{source}: expected records that are objects, found "
        f"{first.error or repr(first.value)}"
    )


def _check_ids(cases: Iterable[EvaluationCase], seen: dict[int | str, int]) -> None:
    for case in cases:
        case_id = case.request.case_id
        if case_id in seen:
            raise RequestFormatError(
                f"case_id {case_id!r} is the one of record {seen[case_id]} already; "
                "give every record its own"
            )


def _in_one_line(error: ValidationError) -> str:
    return "; ".join(
        ".".join(map(str, problem["loc"]))
        + ": "
        + problem["msg"].removeprefix("Value error, ")
        for problem in error.errors()
    )
