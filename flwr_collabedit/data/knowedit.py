"""KnowEdit: the sub-sets ZsRE, Wiki_recent, Wiki_counterfact and WikiBio.

Zhang et al. "A Comprehensive Study of Knowledge Editing for Large Language Models",
    2024, https://arxiv.org/abs/2401.01286; ``zjunlp/KnowEdit`` on the hub. Its ConvSent
    and Sanitation are no facts about a subject and are not read.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from flwr_collabedit.data.fields import (
    Record,
    make_template,
    read_text,
    read_texts,
)
from flwr_collabedit.data.requests import (
    EditRequest,
    EvaluationCase,
    MultiHopQuestion,
    Question,
)
from flwr_collabedit.errors import RequestFormatError


def read_knowedit(record: Record, *, index: int) -> EvaluationCase:
    """Return the case that a record of any of the four sub-sets describes.

    Parameters
    ----------
    record : mapping
        With ``subject``, ``prompt`` (complete, the subject in it once) and
        ``target_new``, which WikiBio calls ``concept``, ``text`` and ``labels``.
        Optionally ``ground_truth`` (the answer before the edit: a text, a list, or a
        list of lists of synonyms, of which the first is taken), ``rephrase_prompt``,
        ``locality`` and ``portability``: objects of lists of ``prompt`` and
        ``ground_truth``. Locality prompts with the subject in them become
        ``same_subject`` questions, the others ``neighborhood``. Of portability,
        ``Reasoning`` becomes ``multi_hop``; ``Subject_Aliasing`` and
        ``Logical_Generalization`` are not read. A question without an answer is left
        out.
    index : int
        Place of the record in its file: the case id, for the layout has none.

    Raises
    ------
    RequestFormatError
        If a field is missing or has another type, or the subject is not exactly once
        in the prompt.
    """
    names = ("subject", "prompt", "target_new")
    if "concept" in record:
        names = ("concept", "text", "labels")
    subject = read_text(record, names[0]).strip()
    before = _answers(record.get("ground_truth"), "ground_truth")
    questions = list(_questions(record, "locality"))
    return EvaluationCase(
        request=EditRequest(
            case_id=index,
            prompt=make_template(read_text(record, names[1]), subject, names[1]),
            subject=subject,
            target_new=read_text(record, names[2]),
        ),
        target_true=before[0] if before else None,
        paraphrase_prompts=read_texts(record, "rephrase_prompt"),
        neighborhood=tuple(
            Question(prompt=prompt, answer=answers[0])
            for _, prompt, answers in questions
            if subject not in prompt
        ),
        same_subject=tuple(
            Question(prompt=prompt, answer=answers[0])
            for _, prompt, answers in questions
            if subject in prompt
        ),
        multi_hop=tuple(
            MultiHopQuestion(phrasings=(prompt,), answers=answers)
            for kind, prompt, answers in _questions(record, "portability")
            if kind == "Reasoning"
        ),
    )


def _questions(
    record: Record, field: str
) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield kind, prompt and answers of every question that has an answer."""
    kinds = record.get(field) or {}
    if not isinstance(kinds, Mapping):
        raise RequestFormatError(f"{field}: expected an object, found {kinds!r}")
    for kind, items in kinds.items():
        for i, item in enumerate(items or ()):
            where = f"{field}.{kind}[{i}]"
            if not isinstance(item, Mapping):
                raise RequestFormatError(f"{where}: expected an object, found {item!r}")
            answers = _answers(item.get("ground_truth"), f"{where}.ground_truth")
            named = {f"{where}.prompt": item.get("prompt")}
            for prompt in read_texts(named, f"{where}.prompt"):
                if answers:
                    yield kind, prompt, answers


def _answers(value: Any, field: str) -> tuple[str, ...]:
    """Return the texts of a text, a list, or a list of lists; blank ones left out."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (value.strip(),) if value.strip() else ()
    if not isinstance(value, list):
        raise RequestFormatError(f"{field}: expected texts, found {value!r}")
    return tuple(text for item in value for text in _answers(item, field))
