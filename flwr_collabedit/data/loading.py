"""Load evaluation cases from a file or from the Hugging Face hub."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from flwr_collabedit.data.counterfact import read_counterfact
from flwr_collabedit.data.easyedit import read_easyedit
from flwr_collabedit.data.fields import Record
from flwr_collabedit.data.record_source import iterate_records
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.data.zsre import ZsreTarget, read_zsre
from flwr_collabedit.errors import ConfigurationError, RequestFormatError, nearest

Reader = Callable[[Record, int], EvaluationCase]


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
        ``easyedit`` (flat) or ``zsre`` (MEND's).
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
    if limit is not None and limit < 1:
        raise ConfigurationError(f"expected limit of at least 1, found {limit}")
    cases: list[EvaluationCase] = []
    seen: dict[int | str, int] = {}
    for index, record in enumerate(islice(iterate_records(source, split), limit)):
        case = _read_record(reader, record, f"{source}, record {index}", index)
        case_id = case.request.case_id
        if case_id in seen:
            raise RequestFormatError(
                f"{source}, record {index}: case_id {case_id!r} is the one of record "
                f"{seen[case_id]} already; give every record its own"
            )
        seen[case_id] = index
        cases.append(case)
    if not cases:
        raise RequestFormatError(f"{source}: expected at least one record, found none")
    return cases


def _find_reader(data_format: str, zsre_target: ZsreTarget) -> Reader:
    targets = get_args(ZsreTarget)
    if zsre_target not in targets:
        raise ConfigurationError(
            f"unknown zsRE target {zsre_target!r}. {nearest(zsre_target, targets)}"
        )
    readers: dict[str, Reader] = {
        "counterfact": lambda record, index: read_counterfact(record),
        "easyedit": lambda record, index: read_easyedit(record, index=index),
        "zsre": lambda record, index: read_zsre(
            record, index=index, target=zsre_target
        ),
    }
    if data_format not in readers:
        raise ConfigurationError(
            f"unknown data format {data_format!r}. {nearest(data_format, readers)}"
        )
    return readers[data_format]


def _read_record(reader: Reader, record: Any, where: str, index: int) -> EvaluationCase:
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
