"""Which facts a model has already, by what it answers (overlap)."""

from collections.abc import Sequence

from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.evaluation.batches import Progress
from flwr_collabedit.evaluation.scoring import score_cases
from flwr_collabedit.models.language_model import LanguageModel


def answers_already(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> list[bool]:
    """Return of every request whether its target is the model's answer as it is now.

    That is, whether each token of the target is the likeliest after the prompt and the
    tokens before it. It costs one forward pass and no gradients; but a model may know
    an answer to this prompt only, see `flwr_collabedit.editors.residuals` for the
    measure of the edit itself.

    Parameters
    ----------
    lm : LanguageModel
        The model, with whatever deltas are to be seen already applied. It is not
        changed.
    requests : sequence of EditRequest
        May be empty; ids may repeat.
    batch_size, progress
        As for `flwr_collabedit.evaluation.scoring.score_cases`, whose errors come
        through.
    """
    cases = [EvaluationCase(request=request) for request in requests]
    scores = score_cases(lm, cases, batch_size=batch_size, progress=progress)
    return [score.rewrite.expected.correct for score in scores]
