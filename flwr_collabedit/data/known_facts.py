"""Facts that a model may know, for tracing where it looks them up.

Meng et al. "Locating and Editing Factual Associations in GPT", NeurIPS 2022; file
``known_1000.json`` (1,209 facts that GPT-2 XL knows).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from flwr_collabedit.data.fact_world import embedded_cases
from flwr_collabedit.data.fields import Record, make_template, read_text
from flwr_collabedit.data.loading import load_cases
from flwr_collabedit.data.reading import parse_record, place_of, read_raw
from flwr_collabedit.data.requests import EvaluationCase, Text
from flwr_collabedit.errors import RequestFormatError


class KnownFact(BaseModel):
    """A fact as it is before any edit.

    Attributes
    ----------
    fact_id : int or str
        Identifies the fact within its file.
    prompt : str
        A template with exactly one ``{}`` for the subject; the answer follows it.
    subject : str
        Whom or what the fact is about.
    answer : str
        The true answer, without a leading space.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fact_id: int | str
    prompt: Text
    subject: Text
    answer: Text


def load_known_facts(
    source: str | Path, *, data_format: str = "", limit: int | None = None
) -> list[KnownFact]:
    """Return the facts of a data set as they are before any edit.

    Parameters
    ----------
    source : str or Path
        As for `flwr_collabedit.data.loading.load_cases`.
    data_format : str
        ``known`` for records as in ROME's file, which is also the guess for records
        with an ``attribute``, or a layout of cases that have a ``target_true``.
    limit : int or None
        Read the first ``limit`` records only, at least 1.

    Raises
    ------
    RequestFormatError
        If a record does not have the layout, or has no true answer.
    ConfigurationError
        If an option is unknown or the source cannot be found.
    """
    if data_format not in ("", "known"):
        return _of_cases(source, data_format, limit)
    raw = read_raw(source, None, limit)
    if not data_format and not _looks_known(raw[0].value):
        return _of_cases(source, data_format, limit)
    facts = []
    for index, record in enumerate(raw):
        try:
            facts.append(parse_record(read_known, record, index))
        except RequestFormatError as error:
            raise RequestFormatError(
                f"{source}, {place_of(record, index)}: {error}"
            ) from error
    return facts


def read_known(record: Record, index: int) -> KnownFact:
    """Return the fact of a record in the layout of ROME's file.

    Parameters
    ----------
    record : mapping
        With ``subject``, ``attribute`` (the answer) and ``prompt``, the subject in it
        once; without a ``prompt``, with a ``template`` that has a ``{}``. The published
        prompts go on after their template up to where the model said the answer.
    index : int
        Its place in the file: the id of a fact without ``known_id``.

    Raises
    ------
    RequestFormatError
        If a field is missing or has another type, or the subject is not exactly once
        in the prompt.
    """
    subject = read_text(record, "subject").strip()
    if record.get("prompt") is None:
        prompt = read_text(record, "template")
    else:
        prompt = make_template(read_text(record, "prompt"), subject, "prompt")
    return KnownFact(
        fact_id=record.get("known_id", index),
        prompt=prompt,
        subject=subject,
        answer=read_text(record, "attribute").strip(),
    )


def embedded_facts(num_facts: int, *, seed: int = 0) -> list[KnownFact]:
    """Return facts of the embedded model's world, one per subject, real and invented.

    Raises
    ------
    ConfigurationError
        If the world has fewer subjects.
    """
    return [
        fact_of_case(case)
        for case in embedded_cases(num_facts, subjects="all", seed=seed)
    ]


def fact_of_case(case: EvaluationCase) -> KnownFact:
    """Return the fact that a case edits, as it is before.

    Raises
    ------
    RequestFormatError
        If the case has no true answer.
    """
    request = case.request
    if case.target_true is None:
        raise RequestFormatError(
            f"Case {request.case_id!r} has no true answer (target_true), which the "
            "model would have to know. Use facts with one, such as ROME's "
            "known_1000.json."
        )
    return KnownFact(
        fact_id=request.case_id,
        prompt=request.prompt,
        subject=request.subject,
        answer=case.target_true.strip(),
    )


def _of_cases(
    source: str | Path, data_format: str, limit: int | None
) -> list[KnownFact]:
    cases = load_cases(source, data_format=data_format, limit=limit)
    return [fact_of_case(case) for case in cases]


def _looks_known(value: Any) -> bool:
    return isinstance(value, Mapping) and {"subject", "attribute"} <= value.keys()
