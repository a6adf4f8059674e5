"""Load evaluation cases from a file or from the Hugging Face hub."""

import logging
from pathlib import Path

from flwr_collabedit.data.conflicts import ConflictPair
from flwr_collabedit.data.easy import read_conflict_pair
from flwr_collabedit.data.reading import (
    parse_record,
    place_of,
    read_data_set,
    read_raw,
)
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.data.zsre import ZsreTarget
from flwr_collabedit.errors import RequestFormatError

_log = logging.getLogger(__name__)


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
        A ``.json`` file (a list of records), a ``.jsonl`` file (a record a line), a
        ``.csv`` or ``.tsv`` file (a header, then a record a row), the id of a data set
        on the Hugging Face hub, a hub id with the path of such a file behind a colon,
        or a short name of `flwr_collabedit.data.formats.KNOWN_SOURCES`.
    data_format : str
        Layout of the records, one of `flwr_collabedit.data.formats.FORMATS`; the empty
        string guesses it from the first record and logs what was guessed.
    split : str or None
        Of a hub data set; ``None`` takes the only one, or the short name's. A file has
        none.
    limit : int or None
        Read the first ``limit`` records only, at least 1.
    zsre_target : str
        ``answers`` or ``alt``, see :func:`flwr_collabedit.data.zsre.read_zsre`.

    Returns
    -------
    list of EvaluationCase
        One a record, but for MQuAKE, whose records hold up to four edits.

    Raises
    ------
    RequestFormatError
        If a record does not have the layout, with file, record, case and field; if a
        case id occurs twice; if there is no record; if no layout or several fit.
    ConfigurationError
        If an option is unknown or the source cannot be found.

    See Also
    --------
    flwr_collabedit.data.reading.read_data_set : all records, and what is wrong with
        each.
    """
    data = read_data_set(
        source,
        data_format=data_format,
        split=split,
        limit=limit,
        zsre_target=zsre_target,
    )
    if data.is_guessed:
        _log.info("%s: read as %r", data.source, data.data_format)
    return data.cases()


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
    pairs = []
    for index, raw in enumerate(read_raw(source, None, limit)):
        try:
            pairs.append(
                parse_record(
                    lambda record, index: read_conflict_pair(record, index=index),
                    raw,
                    index,
                )
            )
        except RequestFormatError as error:
            raise RequestFormatError(
                f"{source}, {place_of(raw, index)}: {error}"
            ) from error
    return pairs
