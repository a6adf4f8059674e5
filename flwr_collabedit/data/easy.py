"""The Easy records of the knowledge-editing pitfalls, and CollabEdit's conflicts.

Li et al. "Unveiling the Pitfalls of Knowledge Editing for Large Language Models", ICLR
    2024, RoundEdit; file ``easy.json``.
Zheng et al. "CollabEdit: Towards Non-destructive Collaborative Knowledge Editing",
    ICLR 2025, section 5.1; file ``easy_conflict_1000_p1.json``. There ``new_object``
    is a text that GPT-3.5 wrote, and ``conflict_object`` is what Easy had as
    ``new_object`` (in all of its 1,000 records).
"""

from flwr_collabedit.data.conflicts import ConflictPair
from flwr_collabedit.data.fields import Record, read_text
from flwr_collabedit.data.normal_form import normal_form
from flwr_collabedit.data.requests import EditRequest, EvaluationCase, Question
from flwr_collabedit.errors import RequestFormatError


def read_easy(record: Record, *, index: int) -> EvaluationCase:
    """Return the edit of a record of either file: to ``new_object``.

    Parameters
    ----------
    record : mapping
        With ``edit``: ``subject.label``, ``object.label`` (the answer before the edit),
        ``new_object`` (a text, or an object with ``label``), and ``relation`` with
        ``id``, ``prompt`` and ``query`` (templates; the query is the paraphrase).
    index : int
        Place of the record in its file: the case id, since records have none.

    Raises
    ------
    RequestFormatError
        If a field is missing or has another type.
    """
    return _case(record, index, _new_object(record), _label(record, "object"))


def read_conflict_pair(record: Record, *, index: int) -> ConflictPair:
    """Return the two edits that a record with a conflict lets compete.

    They are made after the edit of `read_easy`, whose target is therefore the answer
    before either of them.

    Parameters
    ----------
    record : mapping
        As for `read_easy`, with ``edit.conflict_object.label`` and ``true_objects``.
    index : int
        Place of the record in its file.

    Returns
    -------
    ConflictPair
        First the edit to ``object``, which the paper lets win; its ``related`` facts
        are the other ``true_objects``. Then that to ``conflict_object``, without an
        answer before it where that is the same name (74 of the 1,000 records).

    Raises
    ------
    RequestFormatError
        If a field is missing or has another type, or both edits have the same target.
    """
    before, kept = _new_object(record), _label(record, "object")
    rival = _label(record, "conflict_object")
    if normal_form(kept) == normal_form(rival):
        raise RequestFormatError(
            f"edit.conflict_object.label: expected another object than edit.object, "
            f"found {rival!r} for both"
        )
    is_new = normal_form(rival) != normal_form(before)
    first = _case(record, f"{index}-object", kept, before)
    second = _case(record, f"{index}-conflict", rival, before if is_new else None)
    return ConflictPair(
        first.model_copy(update={"related": _related(record, first)}),
        second.model_copy(update={"conflicts_with": first.request.case_id}),
    )


def _case(
    record: Record, case_id: int | str, target: str, before: str | None
) -> EvaluationCase:
    subject = read_text(record, "edit.subject.label").strip()
    query = read_text(record, "edit.relation.query")
    return EvaluationCase(
        request=EditRequest(
            case_id=case_id,
            prompt=read_text(record, "edit.relation.prompt"),
            subject=subject,
            target_new=target,
            relation_id=read_text(record, "edit.relation.id"),
        ),
        target_true=before,
        paraphrase_prompts=(query.replace("{}", subject),),
    )


def _related(record: Record, case: EvaluationCase) -> tuple[Question, ...]:
    """Return the true objects but the case's own, asked by its prompt."""
    objects = record.get("true_objects")
    if not isinstance(objects, list):
        raise RequestFormatError(f"true_objects: expected a list, found {objects!r}")
    labels = [
        read_text({f"true_objects[{i}]": item}, f"true_objects[{i}].label").strip()
        for i, item in enumerate(objects)
    ]
    own = normal_form(case.request.target_new)
    return tuple(
        Question(prompt=case.rewrite_prompt, answer=label)
        for label in labels
        if normal_form(label) != own
    )


def _new_object(record: Record) -> str:
    edit = record.get("edit")
    if isinstance(edit, dict) and isinstance(edit.get("new_object"), str):
        return read_text(record, "edit.new_object").strip()
    return _label(record, "new_object")


def _label(record: Record, name: str) -> str:
    return read_text(record, f"edit.{name}.label").strip()
