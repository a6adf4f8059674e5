"""Load evaluation cases from a file or from the Hugging Face hub."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from flwr_collabedit.data.conflicts import ConflictPair
from flwr_collabedit.data.counterfact import read_counterfact
from flwr_collabedit.data.easy import read_conflict_pair, read_easy
from flwr_collabedit.data.easyedit import read_easyedit
from flwr_collabedit.data.fields import Record
from flwr_collabedit.data.record_source import iterate_records
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.data.zsre import ZsreTarget, read_zsre
from flwr_collabedit.errors import ConfigurationError, RequestFormatError, nearest

T = TypeVar("T")
Reader = Callable[[Record, int], T]


def load_cases(
    source: str | Path,
    *,
    data_format: str = "counterfact",
    split: str | None = None,
    limit: int | None = None,
    zsre_target: ZsreTarget = "answers",
) -> list[EvaluationCase]:
    """Return the cases of a data set, all of them checked.

    Parameters
    ----------
    source : str or Path
        A ``.json`` file (a list of records), a ``.jsonl`` file (a record a line), or
        the id of a data set on the Hugging Face hub.
    data_format : str
        Layout of the records: ``counterfact`` (MEMIT's, also of Multi-CounterFact),
        ``easyedit`` (flat), ``zsre`` (MEND's) or ``easy`` (RoundEdit's, with or
        without CollabEdit's conflicts).
    split : str or None
        Of a hub data set; ``None`` takes the only one. A file has none.
    limit : int or None
        Read the first ``limit`` records only, at least 1.
    zsre_target : str
        ``answers`` or ``alt``, see :func:`flwr_collabedit.data.zsre.read_zsre`.

    Raises
    ------
    RequestFormatError
        If a record does not have the layout, with file, record, case and field; if a
        case id occurs twice; if there is no record.
    ConfigurationError
        If an option is unknown or the source cannot be found.
    """
    reader = _find_reader(data_format, zsre_target)
    cases: list[EvaluationCase] = []
    seen: dict[int | str, int] = {}
    for index, case in enumerate(_read_all(reader, source, split, limit)):
        case_id = case.request.case_id
        if case_id in seen:
            raise RequestFormatError(
                f"{source}, record {index}: case_id {case_id!r} is the one of record "
                f"{seen[case_id]} already; give every record its own"
            )
        seen[case_id] = index
        cases.append(case)
    return cases


def load_conflict_pairs(
    source: str | Path, *, limit: int | None = None
) -> list[ConflictPair]:
    """Return the competing edits of a file in the layout of Easy with conflicts.

    Parameters
    ----------
    source, limit
        As for `load_cases`, which with ``easy`` gives the edits that come before.

    Raises
    ------
    RequestFormatError, ConfigurationError
        As for `load_cases`.
    """
    return list(
        _read_all(
            lambda record, index: read_conflict_pair(record, index=index),
            source,
            None,
            limit,
        )
    )


def _find_reader(data_format: str, zsre_target: ZsreTarget) -> Reader[EvaluationCase]:
    targets = get_args(ZsreTarget)
    if zsre_target not in targets:
        raise ConfigurationError(
            f"unknown zsRE target {zsre_target!r}. {nearest(zsre_target, targets)}"
        )
    readers: dict[str, Reader[EvaluationCase]] = {
        "counterfact": lambda record, index: read_counterfact(record),
        "easyedit": lambda record, index: read_easyedit(record, index=index),
        "zsre": lambda record, index: read_zsre(
            record, index=index, target=zsre_target
        ),
        "easy": lambda record, index: read_easy(record, index=index),
    }
    if data_format not in readers:
        raise ConfigurationError(
            f"unknown data format {data_format!r}. {nearest(data_format, readers)}"
        )
    return readers[data_format]


def _read_all(
    reader: Reader[T], source: str | Path, split: str | None, limit: int | None
) -> Iterator[T]:
    if limit is not None and limit < 1:
        raise ConfigurationError(f"expected limit of at least 1, found {limit}")
    index = -1
    for index, record in enumerate(islice(iterate_records(source, split), limit)):
        yield _read_record(reader, record, f"{source}, record {index}", index)
    if index < 0:
        raise RequestFormatError(f"{source}: expected at least one record, found none")


def _read_record(reader: Reader[T], record: Any, where: str, index: int) -> T:
    if not isinstance(record, dict):
        raise RequestFormatError(f"{where}: expected an object, found {record!r}")
    if record.get("case_id") is not None:
        where += f" (case_id {record['case_id']!r})"
    remedy = "correct the record, or check that the data format is the right one"
    try:
        return reader(record, index)
    except ValidationError as error:
        raise RequestFormatError(f"{where}: {_in_one_line(error)}; {remedy}") from error
    except RequestFormatError as error:
        raise RequestFormatError(f"{where}: {error}; {remedy}") from error


def _in_one_line(error: ValidationError) -> str:
    return "; ".join(
        ".".join(map(str, problem["loc"]))
        + ": "
        + problem["msg"].removeprefix("Value error, ")
        for problem in error.errors()
    )
