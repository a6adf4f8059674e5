"""CounterFact and Multi-CounterFact, in the layout that MEMIT publishes.

Meng et al., 2022, "Locating and Editing Factual Associations in GPT", NeurIPS, and
2023, "Mass-Editing Memory in a Transformer", ICLR; files ``counterfact.json`` and
``multi_counterfact.json``.
"""

from flwr_collabedit.data.fields import Record, read_case_id, read_text, read_texts
from flwr_collabedit.data.requests import EditRequest, EvaluationCase, Question


def read_counterfact(record: Record) -> EvaluationCase:
    """Return the case that a record in MEMIT's layout describes.

    Every neighbourhood prompt shares the relation and the true answer of the request,
    so that answer is what must survive there.

    Parameters
    ----------
    record : mapping
        With ``case_id``, ``requested_rewrite`` (``prompt``, ``subject``,
        ``relation_id``, ``target_new.str``, ``target_true.str``),
        ``paraphrase_prompts``, ``neighborhood_prompts`` and ``generation_prompts``.

    Raises
    ------
    RequestFormatError
        If a field is missing or has another type.
    """
    target_true = read_text(record, "requested_rewrite.target_true.str").strip()
    request = EditRequest(
        case_id=read_case_id(record),
        prompt=read_text(record, "requested_rewrite.prompt"),
        subject=read_text(record, "requested_rewrite.subject"),
        target_new=read_text(record, "requested_rewrite.target_new.str"),
        relation_id=read_text(record, "requested_rewrite.relation_id"),
    )
    return EvaluationCase(
        request=request,
        target_true=target_true,
        paraphrase_prompts=read_texts(record, "paraphrase_prompts"),
        neighborhood=tuple(
            Question(prompt=prompt, answer=target_true)
            for prompt in read_texts(record, "neighborhood_prompts")
        ),
        generation_prompts=read_texts(record, "generation_prompts"),
    )
