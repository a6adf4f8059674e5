"""zsRE question answering, in the layout that MEND publishes.

Levy et al., 2017, "Zero-Shot Relation Extraction via Reading Comprehension", CoNLL;
Mitchell et al., 2022, "Fast Model Editing at Scale", ICLR; ``zsre_mend_eval.json``.
"""

from typing import Literal

from flwr_collabedit.data.fields import Record, make_template, read_text, read_texts
from flwr_collabedit.data.requests import EditRequest, EvaluationCase, Question
from flwr_collabedit.errors import RequestFormatError

ZsreTarget = Literal["answers", "alt"]


def read_zsre(record: Record, *, index: int, target: ZsreTarget) -> EvaluationCase:
    """Return the case that a record in MEND's layout describes.

    Parameters
    ----------
    record : mapping
        With ``subject``, ``src`` (the question, the subject in it once), ``answers``,
        ``alt``, ``rephrase``, ``loc`` (an unrelated question without its question
        mark) and ``loc_ans``. Only the one of ``answers`` and ``alt`` that
        ``target`` chooses is read.
    index : int
        Place of the record in its file: the case id, for the layout has none.
    target : str
        ``answers`` edits towards the first true answer, as MEMIT does; ``alt`` towards
        the counterfactual one, as EasyEdit and D4S do. Results of the two cannot be
        compared.

    Raises
    ------
    RequestFormatError
        If a field is missing or has another type, or the subject is not exactly once
        in the question.
    """
    subject = read_text(record, "subject").strip()
    request = EditRequest(
        case_id=index,
        prompt=make_template(read_text(record, "src"), subject, "src"),
        subject=subject,
        target_new=_first_text(record, target),
    )
    # MEMIT scores the unrelated question with a question mark after it.
    unrelated = read_text(record, "loc").removesuffix("?") + "?"
    answer = read_text(record, "loc_ans").strip()
    return EvaluationCase(
        request=request,
        paraphrase_prompts=(read_text(record, "rephrase"),),
        neighborhood=(Question(prompt=unrelated, answer=answer),),
    )


def _first_text(record: Record, field: str) -> str:
    texts = read_texts(record, field)
    if not texts:
        raise RequestFormatError(f"{field}: expected an answer, found none")
    return texts[0]
