"""A user's own facts: a subject, a prompt and a new target a record.

A CSV row and a JSON object with the same fields are the same record.
"""

import re
from typing import Any

from flwr_collabedit.data.fields import (
    Record,
    make_template,
    read_case_id,
    read_text,
    read_texts,
)
from flwr_collabedit.data.requests import EditRequest, EvaluationCase, Question
from flwr_collabedit.errors import RequestFormatError, nearest

REQUIRED = ("subject", "prompt", "target_new")
OPTIONAL = ("target_true", "paraphrases", "neighborhood", "case_id", "relation_id")
SEPARATOR = " | "
ARROW = " => "

_NUMBERED = re.compile(r"(paraphrase|neighborhood)_[0-9]+")
_ALSO_CALLED = {"answer": "target_new", "object": "target_new", "question": "prompt"}


def is_plain_field(name: str) -> bool:
    """Return whether plain records may have a field of this name."""
    return name in REQUIRED + OPTIONAL or _NUMBERED.fullmatch(name) is not None


def read_plain(record: Record, *, index: int) -> EvaluationCase:
    """Return the case that a plain record describes.

    Parameters
    ----------
    record : mapping
        With ``subject``, ``prompt`` (a template with one ``{}``, or a text that has the
        subject in it once, letter for letter) and ``target_new``; optionally
        ``target_true``, ``case_id``, ``relation_id``, ``paraphrases`` and
        ``neighborhood``. The last two are a list, or one text in which `` | `` stands
        between the prompts; ``paraphrase_1``, ``neighborhood_1`` and so on hold one
        prompt each. In paraphrases, ``{}`` stands for the subject. A neighborhood
        prompt's answer stands behind `` => ``; without one it is ``target_true``, as in
        CounterFact. In JSON it may also be an object with ``prompt`` and ``answer``.
    index : int
        Place of the record in its file: the case id where the record has none.

    Raises
    ------
    RequestFormatError
        If a field is unknown, missing or of another type, the prompt has no place for
        the subject, or a neighborhood prompt has no answer.
    """
    _check_names(record)
    subject = read_text(record, "subject").strip()
    target_true = read_texts(record, "target_true")
    if len(target_true) > 1:
        raise RequestFormatError(f"target_true: expected a text, found {target_true!r}")
    true = target_true[0].strip() if target_true else None
    return EvaluationCase(
        request=EditRequest(
            case_id=index if record.get("case_id") is None else read_case_id(record),
            prompt=_template(read_text(record, "prompt"), subject),
            subject=subject,
            target_new=read_text(record, "target_new"),
            relation_id="".join(read_texts(record, "relation_id")),
        ),
        target_true=true,
        paraphrase_prompts=tuple(
            read_text({field: item}, field).replace("{}", subject)
            for field, item in _items(record, "paraphrases", "paraphrase")
        ),
        neighborhood=tuple(
            _question(item, field, true)
            for field, item in _items(record, "neighborhood", "neighborhood")
        ),
    )


def explain_unknown(name: str) -> str:
    """Return a sentence on a field that plain records do not have."""
    if name in _ALSO_CALLED:
        return f"{name}: unknown field; is it {_ALSO_CALLED[name]!r}?"
    return f"{name}: unknown field. {nearest(name, REQUIRED + OPTIONAL)}"


def _check_names(record: Record) -> None:
    unknown = [
        name
        for name, value in record.items()
        if value is not None and not is_plain_field(name)
    ]
    if unknown:
        raise RequestFormatError(" ".join(map(explain_unknown, unknown)))


def _template(prompt: str, subject: str) -> str:
    if "{}" in prompt:
        return prompt  # that it has one only is checked by the request
    if prompt.count(subject) != 1:
        raise RequestFormatError(
            f"prompt: expected '{{}}' in the place of the subject, or {subject!r} "
            f"exactly once, found it {prompt.count(subject)} times in {prompt!r}"
        )
    return make_template(prompt, subject, "prompt")


def _items(record: Record, field: str, numbered: str) -> list[tuple[str, Any]]:
    """Return the items of a field and of its numbered columns, each with its name."""
    value = record.get(field)
    if isinstance(value, str):
        value = value.split(SEPARATOR)
    elif value is not None and not isinstance(value, list):
        raise RequestFormatError(f"{field}: expected a text or a list, found {value!r}")
    items = [(f"{field}[{i}]", item) for i, item in enumerate(value or ())]
    columns = sorted(
        (name for name in record if re.fullmatch(rf"{numbered}_[0-9]+", name)),
        key=lambda name: int(name.rpartition("_")[2]),
    )
    return items + [(n, record[n]) for n in columns if record[n] is not None]


def _question(item: Any, field: str, true: str | None) -> Question:
    if isinstance(item, dict):
        parts = {f"{field}.{name}": value for name, value in item.items()}
        prompt = parts.get(f"{field}.prompt")
        answer = parts.get(f"{field}.answer")
    else:
        prompt, arrow, behind = read_text({field: item}, field).partition(ARROW)
        answer = behind if arrow else true
    if not isinstance(prompt, str) or not isinstance(answer, str):
        raise RequestFormatError(
            f"{field}: expected a prompt and, behind '{ARROW}', its answer (or the "
            f"record's target_true), found {item!r}"
        )
    return Question(prompt=prompt.strip(), answer=answer.strip())


def to_plain(case: EvaluationCase) -> dict[str, Any]:
    """Return a case as a plain record; reading that gives the case again.

    ``same_subject``, ``related`` and ``multi_hop`` questions have no place in it, and
    nothing of them is kept.
    """
    request = case.request
    values: dict[str, Any] = {
        "case_id": request.case_id,
        "subject": request.subject,
        "prompt": request.prompt,
        "target_new": request.target_new,
        "target_true": case.target_true,
        "relation_id": request.relation_id,
        "paraphrases": list(case.paraphrase_prompts),
        "neighborhood": [question.model_dump() for question in case.neighborhood],
    }
    return {
        name: value for name, value in values.items() if value not in (None, "", [])
    }
