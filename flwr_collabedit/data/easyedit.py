"""CounterFact in EasyEdit's flat layout.

Wang et al., 2024, "EasyEdit: An Easy-to-use Knowledge Editing Framework for Large
Language Models", ACL (demonstrations); files ``counterfact-edit.json`` and alike.
"""

from flwr_collabedit.data.fields import (
    Record,
    make_template,
    read_case_id,
    read_text,
    read_texts,
)
from flwr_collabedit.data.requests import EditRequest, EvaluationCase, Question
from flwr_collabedit.errors import RequestFormatError


def read_easyedit(record: Record, *, index: int) -> EvaluationCase:
    """Return the case that a record in EasyEdit's flat layout describes.

    Parameters
    ----------
    record : mapping
        With ``prompt`` (complete, the subject in it once), ``subject`` and
        ``target_new``; optionally ``case_id``, ``relation_id``, ``ground_truth``
        (of a list, the first is taken), ``rephrase_prompt``, ``locality_prompt`` and
        ``locality_ground_truth``, the last three each a text or a list.
    index : int
        Place of the record in its file: the case id where the record has none.

    Raises
    ------
    RequestFormatError
        If a field is missing or has another type, the subject is not exactly once in
        the prompt, or locality prompts and answers differ in number.
    """
    subject = read_text(record, "subject").strip()
    prompt = read_text(record, "prompt")
    request = EditRequest(
        case_id=index if record.get("case_id") is None else read_case_id(record),
        prompt=make_template(prompt, subject, "prompt"),
        subject=subject,
        target_new=read_text(record, "target_new"),
        relation_id="".join(read_texts(record, "relation_id")),
    )
    ground_truth = read_texts(record, "ground_truth")
    return EvaluationCase(
        request=request,
        target_true=ground_truth[0].strip() if ground_truth else None,
        paraphrase_prompts=read_texts(record, "rephrase_prompt"),
        neighborhood=_read_locality(record),
    )


def _read_locality(record: Record) -> tuple[Question, ...]:
    prompts = read_texts(record, "locality_prompt")
    answers = read_texts(record, "locality_ground_truth")
    if len(prompts) != len(answers):
        raise RequestFormatError(
            f"locality_ground_truth: expected one answer for each of the "
            f"{len(prompts)} in locality_prompt, found {len(answers)}"
        )
    return tuple(
        Question(prompt=prompt, answer=answer.strip())
        for prompt, answer in zip(prompts, answers, strict=True)
    )
