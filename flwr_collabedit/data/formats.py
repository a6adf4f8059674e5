"""The layouts that records come in, and where the well-known data sets are.

A format is chosen by name, or guessed from a record where its fields fit one only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, get_args

from flwr_collabedit.data import plain
from flwr_collabedit.data.counterfact import read_counterfact
from flwr_collabedit.data.easy import read_easy
from flwr_collabedit.data.easyedit import read_easyedit
from flwr_collabedit.data.fields import Record
from flwr_collabedit.data.knowedit import read_knowedit
from flwr_collabedit.data.mquake import read_mquake
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.data.zsre import ZsreTarget, read_zsre
from flwr_collabedit.errors import (
    ConfigurationError,
    RequestFormatError,
    nearest,
    shorten,
)

Reader = Callable[[Record, int], list[EvaluationCase]]


@dataclass(frozen=True)
class DataFormat:
    """A layout of records.

    Attributes
    ----------
    fields : str
        What a record must have, for a reader of tables.
    fits : callable
        Whether these fields, those that are ``null`` left out, are of this layout.
    origin : str
        Who publishes records in it.
    """

    fields: str
    fits: Callable[[Record], bool]
    origin: str


@dataclass(frozen=True)
class KnownSource:
    """A data set that has a short name.

    Attributes
    ----------
    source, split
        As `flwr_collabedit.data.loading.load_cases` takes them.
    data_format : str
        Its records' layout.
    """

    source: str
    split: str | None
    data_format: str


_FLAT = set(plain.REQUIRED)
_EASYEDIT = {"locality_prompt", "locality_ground_truth"}


def _is_plain(record: Record) -> bool:
    return record.keys() >= _FLAT and all(map(plain.is_plain_field, record))


def _is_easyedit(record: Record) -> bool:
    own = _EASYEDIT | {"ground_truth", "rephrase_prompt"}
    return (
        record.keys() >= _FLAT
        and bool(own & record.keys())
        and not _is_knowedit(record)
    )


def _is_knowedit(record: Record) -> bool:
    if record.keys() >= {"text", "concept", "labels"}:
        return True
    asked = [record.get("locality"), record.get("portability")]
    return (
        record.keys() >= _FLAT
        and any(isinstance(kinds, Mapping) for kinds in asked)
        and not _EASYEDIT & record.keys()
    )


FORMATS: Mapping[str, DataFormat] = MappingProxyType(
    {
        "plain": DataFormat(
            "subject, prompt, target_new", _is_plain, "your own CSV or JSON"
        ),
        "counterfact": DataFormat(
            "requested_rewrite{prompt, subject, target_new, target_true}",
            lambda record: isinstance(record.get("requested_rewrite"), Mapping),
            "MEMIT: CounterFact, Multi-CounterFact",
        ),
        "easyedit": DataFormat(
            "subject, prompt, target_new, ground_truth", _is_easyedit, "EasyEdit"
        ),
        "zsre": DataFormat(
            "subject, src, answers or alt, rephrase, loc, loc_ans",
            lambda record: record.keys() >= {"subject", "src", "loc"},
            "MEND: zsRE",
        ),
        "knowedit": DataFormat(
            "subject, prompt, target_new, locality; or concept, text, labels",
            _is_knowedit,
            "KnowEdit: ZsRE, Wiki_recent, Wiki_counterfact, WikiBio",
        ),
        "mquake": DataFormat(
            "requested_rewrite[], questions, new_answer",
            lambda record: isinstance(record.get("requested_rewrite"), list),
            "MQuAKE",
        ),
        "easy": DataFormat(
            "edit{subject, relation, new_object, object}",
            lambda record: isinstance(record.get("edit"), Mapping),
            "Pitfalls: Easy; CollabEdit's conflicts",
        ),
    }
)

_KNOWEDIT = "zjunlp/KnowEdit:benchmark"
KNOWN_SOURCES: Mapping[str, KnownSource] = MappingProxyType(
    {
        "counterfact": KnownSource("azhx/counterfact", "train", "counterfact"),
        "mquake": KnownSource("henryzhongsc/MQuAKE-Remastered", "CF3k", "mquake"),
        "knowedit-zsre": KnownSource(
            f"{_KNOWEDIT}/ZsRE/ZsRE-test-all.json", None, "knowedit"
        ),
        "knowedit-wiki-recent": KnownSource(
            f"{_KNOWEDIT}/wiki_recent/recent_test.json", None, "knowedit"
        ),
        "knowedit-wiki-counterfact": KnownSource(
            f"{_KNOWEDIT}/wiki_counterfact/test_cf.json", None, "knowedit"
        ),
        "knowedit-wikibio": KnownSource(
            f"{_KNOWEDIT}/WikiBio/wikibio-test-all.json", None, "knowedit"
        ),
    }
)


def find_reader(data_format: str, *, zsre_target: ZsreTarget = "answers") -> Reader:
    """Return what turns a record of a format into cases.

    Raises
    ------
    ConfigurationError
        If the format or ``zsre_target`` is unknown.
    """
    targets = get_args(ZsreTarget)
    if zsre_target not in targets:
        raise ConfigurationError(
            f"unknown zsRE target {zsre_target!r}. {nearest(zsre_target, targets)}"
        )
    readers: dict[str, Reader] = {
        "plain": partial(_read_one, plain.read_plain),
        "counterfact": lambda record, index: [read_counterfact(record)],
        "easyedit": partial(_read_one, read_easyedit),
        "zsre": partial(_read_one, partial(read_zsre, target=zsre_target)),
        "knowedit": partial(_read_one, read_knowedit),
        "mquake": lambda record, index: read_mquake(record),
        "easy": partial(_read_one, read_easy),
    }
    if data_format not in readers:
        raise ConfigurationError(
            f"unknown data format {data_format!r}. {nearest(data_format, readers)}"
        )
    return readers[data_format]


def guess_format(record: Record) -> str:
    """Return the one format that a record's fields fit.

    Raises
    ------
    RequestFormatError
        If they fit none or several; it lists what was found.
    """
    present = {name: value for name, value in record.items() if value is not None}
    fitting = [name for name, known in FORMATS.items() if known.fits(present)]
    if len(fitting) == 1:
        return fitting[0]
    found = shorten(sorted(present), 12) or "none"
    if fitting:
        raise RequestFormatError(
            f"expected fields of one format, found {found}, which fit "
            f"{shorten(fitting)}; name the format"
        )
    raise RequestFormatError(
        f"expected the fields of a known format, found {found}."
        f"{_how_not_plain(present)} Name the format, one of "
        f"{shorten(FORMATS, len(FORMATS))}"
    )


def _how_not_plain(record: Record) -> str:
    """Return what keeps flat fields from being a plain record."""
    if not _FLAT & record.keys():
        return ""
    lacking = [name for name in plain.REQUIRED if name not in record]
    unknown = [name for name in record if not plain.is_plain_field(name)]
    said = [f" A plain record needs {shorten(lacking)}, too."] if lacking else []
    return "".join(said + [f" {plain.explain_unknown(name)}" for name in unknown[:3]])


def _read_one(
    read: Callable[..., EvaluationCase], record: Any, index: int
) -> list[EvaluationCase]:
    return [read(record, index=index)]
