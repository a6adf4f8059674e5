"""Which edits a model has already: the paper's overlap, made dimensionless.

Zheng et al. "CollabEdit", ICLR 2025, section 3.3.1 and figure 3: the residual of a fact
that has been edited before is small.
"""

from collections.abc import Sequence

from torch import Tensor
from torch.linalg import vector_norm

from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.keys import current_values
from flwr_collabedit.editors.targets import Targets
from flwr_collabedit.evaluation.scoring import score_cases
from flwr_collabedit.models.language_model import LanguageModel


def answers_already(lm: LanguageModel, requests: Sequence[EditRequest]) -> list[bool]:
    """Return of each request whether the model, as it is, gives the new target.

    That is, whether every token of it is the likeliest after the rewrite prompt.
    """
    cases = [EvaluationCase(request=request) for request in requests]
    return [score.rewrite.expected.correct for score in score_cases(lm, cases)]


def relative_residuals(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    targets: Targets,
    memit: MemitConfig,
) -> Tensor:
    """Return how far each value is from its target, as a share of the farthest.

    ``||z - v|| / (clamp ||h0||)`` with ``v`` the value on the model as it is and ``h0``
    that from which the target was optimised: the clamp lets no target be farther away
    than 1. A target of a fact that the model has already is found near by.

    Returns
    -------
    Tensor
        Shape ``(n,)``, float64; 0 where the edit is all there.
    """
    current = current_values(lm, requests, memit).double()
    z, initial = targets.z.to(current), targets.initial.to(current)
    farthest = memit.clamp_norm_factor * vector_norm(initial, dim=1)
    shares: Tensor = vector_norm(z - current, dim=1) / farthest
    return shares
