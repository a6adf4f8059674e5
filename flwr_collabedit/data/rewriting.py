"""Every prompt of a case written another way, such as into a chat template."""

from collections.abc import Callable

from flwr_collabedit.data.requests import EvaluationCase, Question


def rewritten(case: EvaluationCase, write: Callable[[str], str]) -> EvaluationCase:
    """Return the case with each of its prompts as ``write`` gives it.

    Targets and answers stay. That is the request's prompt, with its ``{}``, and the
    prompts of paraphrases, neighbourhood, same subject, related facts and free text.

    Examples
    --------
    >>> from flwr_collabedit.data.requests import EditRequest
    >>> request = EditRequest(
    ...     case_id=1, prompt="{} is in", subject="Rome", target_new="Peru"
    ... )
    >>> case = EvaluationCase(request=request)
    >>> rewritten(case, lambda prompt: f"Q: {prompt}? A:").rewrite_prompt
    'Q: Rome is in? A:'
    """

    def each(questions: tuple[Question, ...]) -> tuple[Question, ...]:
        return tuple(
            Question(prompt=write(one.prompt), answer=one.answer) for one in questions
        )

    request = case.request
    return case.model_copy(
        update={
            "request": type(request).model_validate(
                {**request.model_dump(), "prompt": write(request.prompt)}
            ),
            "paraphrase_prompts": tuple(map(write, case.paraphrase_prompts)),
            "neighborhood": each(case.neighborhood),
            "same_subject": each(case.same_subject),
            "related": each(case.related),
            "generation_prompts": tuple(map(write, case.generation_prompts)),
        }
    )
