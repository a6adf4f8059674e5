"""Read the fields of a raw record; every error names the field as the file does."""

from collections.abc import Mapping
from typing import Any

from flwr_collabedit.errors import RequestFormatError, shorten

Record = Mapping[str, Any]


def read_text(record: Record, field: str) -> str:
    """Return a field that holds text.

    Parameters
    ----------
    record : mapping
        Raw JSON.
    field : str
        Its name; dots lead into nested objects, as in ``target_new.str``.

    Raises
    ------
    RequestFormatError
        If the field is missing, is not text or has nothing but white space.
    """
    return _as_text(_look_up(record, field), field)


def read_texts(record: Record, field: str) -> tuple[str, ...]:
    """Return a field that holds a list of texts, or one text in place of a list.

    Published files have both. A field that is missing or ``null`` holds none.

    Raises
    ------
    RequestFormatError
        If an item is not text or has nothing but white space.
    """
    value = record.get(field)
    if value is None:
        return ()
    if not isinstance(value, list):
        return (_as_text(value, field),)
    return tuple(_as_text(item, f"{field}[{i}]") for i, item in enumerate(value))


def read_case_id(record: Record) -> int | str:
    """Return the field ``case_id``, a number or a text.

    Raises
    ------
    RequestFormatError
        If it is missing or of another type.
    """
    value = _look_up(record, "case_id")
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise RequestFormatError(f"case_id: expected a number or text, found {value!r}")
    return value


def make_template(prompt: str, subject: str, field: str) -> str:
    """Return the prompt with ``{}`` in the place of its subject.

    Raises
    ------
    RequestFormatError
        If the subject does not occur exactly once, letter for letter: then it is
        open which occurrence the fact is about.
    """
    count = prompt.count(subject)
    if count != 1:
        raise RequestFormatError(
            f"{field}: expected the subject {subject!r} exactly once, found it "
            f"{count} times in {prompt!r}"
        )
    return prompt.replace(subject, "{}")


def _look_up(record: Record, field: str) -> Any:
    value: Any = record
    for name in field.split("."):
        if not isinstance(value, Mapping) or value.get(name) is None:
            found = shorten(value) if isinstance(value, Mapping) else repr(value)
            raise RequestFormatError(f"{field}: expected a value, found only {found}")
        value = value[name]
    return value


def _as_text(value: Any, field: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise RequestFormatError(f"{field}: expected a text, found {value!r}")
    return value
