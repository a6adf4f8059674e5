"""MQuAKE: edits, and questions whose answers follow from them over several hops.

Zhong et al. "MQuAKE: Assessing Knowledge Editing in Language Models via Multi-Hop
    Questions", EMNLP 2023; files ``MQuAKE-CF-3k-v2.json``, ``MQuAKE-CF.json`` and
    ``MQuAKE-T.json``.
Zhong et al. "MQuAKE-Remastered", ICLR 2025, without the first's contradictions, has its
    answers as ``target_new_str`` on the hub.
"""

from collections.abc import Mapping

from flwr_collabedit.data.fields import Record, read_case_id, read_text, read_texts
from flwr_collabedit.data.requests import EditRequest, EvaluationCase, MultiHopQuestion
from flwr_collabedit.errors import RequestFormatError


def read_mquake(record: Record) -> list[EvaluationCase]:
    """Return one case for each edit of a record; the first has its questions.

    Parameters
    ----------
    record : mapping
        With ``case_id``; ``requested_rewrite``, a list of objects with ``prompt`` (a
        template), ``subject``, ``relation_id``, ``target_new.str`` (or
        ``target_new_str``), optionally ``target_true.str`` (or ``target_true_str``) and
        ``question``, which becomes the paraphrase; ``questions``, one multi-hop
        question in several wordings; ``new_answer`` and ``new_answer_alias``.

    Returns
    -------
    list of EvaluationCase
        Where a record has several edits, their ids are its own with ``-0``, ``-1``, ...
        The answer to the questions depends on all of them.

    Raises
    ------
    RequestFormatError
        If a field is missing or has another type.
    """
    rewrites = record.get("requested_rewrite")
    if not isinstance(rewrites, list) or not rewrites:
        raise RequestFormatError(
            f"requested_rewrite: expected a list of edits, found {rewrites!r}"
        )
    case_id = read_case_id(record)
    ids = [case_id] if len(rewrites) == 1 else _numbered(case_id, len(rewrites))
    answers = (read_text(record, "new_answer"), *read_texts(record, "new_answer_alias"))
    asked = MultiHopQuestion(
        phrasings=read_texts(record, "questions"),
        answers=tuple(dict.fromkeys(answer.strip() for answer in answers)),
    )
    return [
        _case(rewrite, own, f"requested_rewrite[{i}]", (asked,) if i == 0 else ())
        for i, (rewrite, own) in enumerate(zip(rewrites, ids, strict=True))
    ]


def _numbered(case_id: int | str, count: int) -> list[int | str]:
    return [f"{case_id}-{i}" for i in range(count)]


def _case(
    rewrite: object,
    case_id: int | str,
    field: str,
    multi_hop: tuple[MultiHopQuestion, ...],
) -> EvaluationCase:
    if not isinstance(rewrite, Mapping):
        raise RequestFormatError(f"{field}: expected an object, found {rewrite!r}")
    named = {field: rewrite}
    return EvaluationCase(
        request=EditRequest(
            case_id=case_id,
            prompt=read_text(named, f"{field}.prompt"),
            subject=read_text(named, f"{field}.subject"),
            target_new=_target(rewrite, "target_new", field)
            or read_text(named, f"{field}.target_new.str"),
            relation_id="".join(read_texts(rewrite, "relation_id")),
        ),
        target_true=_target(rewrite, "target_true", field),
        paraphrase_prompts=read_texts(rewrite, "question"),
        multi_hop=multi_hop,
    )


def _target(rewrite: Mapping[str, object], name: str, field: str) -> str | None:
    """Return a target's text under either name; ``None`` where there is neither."""
    if rewrite.get(f"{name}_str") is not None:
        return read_text({field: rewrite}, f"{field}.{name}_str").strip()
    if rewrite.get(name) is None:
        return None
    return read_text({field: rewrite}, f"{field}.{name}.str").strip()
