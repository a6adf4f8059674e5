"""One fact as three edits: direct generation, true or false, multiple choice.

Huang, Liu et al., "Reasons and Solutions for the Decline in Model Performance after
    Editing" (D4S), NeurIPS 2024, section 3.2 and Table 1 (Multi-Question Dataset).

A question begins with the fact's own prompt, so that the subject, whose last token is
what is edited, has the same text before it in all three: their keys are equal, and
what differs between them is the target.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

from flwr_collabedit.data.question_wording import WORDINGS, Wording
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.errors import ConfigurationError, RequestFormatError, nearest

QuestionType = Literal["direct-generation", "multiple-choice", "true-false"]


def ask_as(
    case: EvaluationCase,
    question_type: QuestionType,
    objects: Iterable[str],
    *,
    wording: Wording = WORDINGS["d4s"],
    seed: int = 0,
) -> EvaluationCase:
    """Return the case with its fact asked for in another way.

    The draw depends on the seed, the type and the case alone, not on which cases are
    made with it: two parties that hold the same fact ask the same question.

    Parameters
    ----------
    case : EvaluationCase
        Its prompt is a text to complete ("The capital of {} is").
    question_type : {"direct-generation", "multiple-choice", "true-false"}
        ``direct-generation`` returns the case as it is. ``multiple-choice`` offers the
        new target and three other objects, the true one among them if the case has it,
        in a drawn order; the target is the new target's label. ``true-false`` states
        the new target, to which the target is ``yes``, or in half of the cases another
        object (the true one if the case has it), to which it is ``no``.
    objects : iterable of str
        Objects of the same relation; may hold the case's own.
    wording : Wording
        See `flwr_collabedit.data.question_wording`.
    seed : int
        Of the draw.

    Returns
    -------
    EvaluationCase
        With the same id, subject and relation. ``target_true`` is the label of the true
        object (``None`` without one) or the other of yes and no. The paraphrases ask
        the same question about the paraphrased prompt. Neighborhood and same-subject
        questions stay what they are, since that knowledge is to survive; their contest
        with a label says nothing, so read their accuracy, not their success.

    Raises
    ------
    ConfigurationError
        If the type is unknown.
    RequestFormatError
        If there are too few other objects.
    """
    if question_type not in get_args(QuestionType):
        raise ConfigurationError(
            f"Unknown question type {question_type!r}. "
            f"{nearest(question_type, get_args(QuestionType))}"
        )
    if question_type == "direct-generation":
        return case
    rng = random.Random(f"{seed}/{question_type}/{case.request.case_id}")
    if question_type == "multiple-choice":
        return _multiple_choice(case, objects, wording, rng)
    return _true_false(case, objects, wording, rng)


def objects_by_relation(cases: Iterable[EvaluationCase]) -> dict[str, tuple[str, ...]]:
    """Return the distinct new and true targets of each relation, sorted."""
    found: dict[str, set[str]] = {}
    for case in cases:
        objects = found.setdefault(case.request.relation_id, set())
        objects.add(case.request.target_new)
        if case.target_true is not None:
            objects.add(case.target_true)
    return {relation: tuple(sorted(objects)) for relation, objects in found.items()}


def _multiple_choice(
    case: EvaluationCase, objects: Iterable[str], wording: Wording, rng: random.Random
) -> EvaluationCase:
    new, true = case.request.target_new, case.target_true
    known = [] if true is None else [true]
    drawn = _others(case, objects, len(wording.labels) - 1 - len(known), rng)
    options = [new, *known, *drawn]
    rng.shuffle(options)
    label = dict(zip(options, wording.labels, strict=True))
    listed = wording.separator.join(
        wording.option.format(label=label[text], text=text) for text in options
    )
    return _asked(
        case,
        wording.multiple_choice,
        {"options": listed},
        target_new=label[new],
        target_true=None if true is None else label[true],
    )


def _true_false(
    case: EvaluationCase, objects: Iterable[str], wording: Wording, rng: random.Random
) -> EvaluationCase:
    holds = rng.random() < 1 / 2
    if holds:
        stated = case.request.target_new
    else:
        stated = case.target_true or _others(case, objects, 1, rng)[0]
    right, wrong = (wording.yes, wording.no) if holds else (wording.no, wording.yes)
    return _asked(
        case,
        wording.true_false,
        {"answer": stated},
        target_new=right,
        target_true=wrong,
    )


def _others(
    case: EvaluationCase, objects: Iterable[str], count: int, rng: random.Random
) -> Sequence[str]:
    request = case.request
    others = sorted({*objects} - {request.target_new, case.target_true})
    if len(others) < count:
        raise RequestFormatError(
            f"Case {request.case_id!r}: expected at least {count} other objects of the "
            f"relation {request.relation_id!r}, found {len(others)}. Give more objects "
            "or leave the case out."
        )
    return rng.sample(others, count)


def _asked(
    case: EvaluationCase,
    template: str,
    content: Mapping[str, str],
    *,
    target_new: str,
    target_true: str | None,
) -> EvaluationCase:
    """Return the case with every prompt about the fact put into the template."""
    prompt, *paraphrases = (
        template.format(prompt=text, **content)
        for text in (case.request.prompt, *case.paraphrase_prompts)
    )
    # Built anew, since model_copy would check nothing.
    return EvaluationCase.model_validate(
        {
            **case.model_dump(),
            "request": {
                **case.request.model_dump(),
                "prompt": prompt,
                "target_new": target_new,
            },
            "target_true": target_true,
            "paraphrase_prompts": tuple(paraphrases),
        }
    )
