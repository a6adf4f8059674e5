"""More edits of one fact: its paraphrases and the facts that support it.

Zheng et al. "CollabEdit: Towards Non-destructive Collaborative Knowledge Editing",
    ICLR 2025, section 4.2.2: the client whose edit is kept in a conflict augments it.
Li et al. "Unveiling the Pitfalls of Knowledge Editing for Large Language Models", ICLR
    2024: Multi-Label Edit, the other true objects of the relation.
"""

from flwr_collabedit.data.requests import EditRequest, EvaluationCase


def augmented(case: EvaluationCase) -> list[EditRequest]:
    """Return the case's edit, then edits of its paraphrases and of related facts.

    Parameters
    ----------
    case : EvaluationCase
        A prompt in which the subject does not occur exactly once, letter for letter,
        or whose template is the edit's own, adds nothing. To keep paraphrases for
        scoring, give a case without them: what is edited here is no longer held out.

    Returns
    -------
    list of EditRequest
        Paraphrases have the edit's target, related facts their own; the ids are the
        edit's with ``-paraphrase-<place>`` and ``-related-<place>``.

    Notes
    -----
    Only the first request is to be tagged (`flwr_collabedit.fact_tags`): a related
    fact may be another object of the same subject and relation, which the tags would
    take for a conflict.
    """
    asked = [
        ("paraphrase", place, prompt, case.request.target_new)
        for place, prompt in enumerate(case.paraphrase_prompts)
    ]
    asked += [
        ("related", place, question.prompt, question.answer)
        for place, question in enumerate(case.related)
    ]
    requests = {_text(case.request): case.request}
    for kind, place, prompt, target in asked:
        request = _request(case.request, f"{kind}-{place}", prompt, target)
        if request is not None:
            requests.setdefault(_text(request), request)
    return list(requests.values())


def _request(
    edit: EditRequest, name: str, prompt: str, target: str
) -> EditRequest | None:
    if prompt.count(edit.subject) != 1 or "{}" in prompt:
        return None
    return EditRequest(
        case_id=f"{edit.case_id}-{name}",
        prompt=prompt.replace(edit.subject, "{}"),
        subject=edit.subject,
        target_new=target,
        relation_id=edit.relation_id,
    )


def _text(request: EditRequest) -> tuple[str, str]:
    return request.prompt, request.target_new
