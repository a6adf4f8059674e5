"""Every prompt of a case written another way, such as into a chat template."""

from collections.abc import Callable

from flwr_collabedit.data.requests import EvaluationCase, MultiHopQuestion, Question


def rewritten(case: EvaluationCase, write: Callable[[str], str]) -> EvaluationCase:
    """Return the case with each of its prompts as ``write`` gives it.

    Those are the request's prompt, with its ``{}``, the paraphrases, and the prompts of
    neighbourhood, same subject, related facts, multi-hop questions and free text.
    Targets and answers stay.

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
            "multi_hop": tuple(
                MultiHopQuestion(
                    phrasings=tuple(map(write, one.phrasings)), answers=one.answers
                )
                for one in case.multi_hop
            ),
        }
    )
