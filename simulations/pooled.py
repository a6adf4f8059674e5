"""The pooled reference: one party that holds every client's edits (GLOBAL-EDIT)."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.evaluation.evaluate import evaluate_cases
from flwr_collabedit.evaluation.metrics import MetricSums
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import applied_deltas
from flwr_collabedit.progress import ProgressLog
from simulations.experiment import Rounds
from simulations.settings import ExperimentSettings
from simulations.strategies import pooled_options


@dataclass(frozen=True)
class PooledResult:
    """Cumulative deltas ``(d_value, d_key)`` by parameter, their scores, the time."""

    deltas: dict[str, Tensor]
    sums: MetricSums
    seconds: float


def edit_pooled(
    settings: ExperimentSettings,
    lm: LanguageModel,
    memit: MemitConfig,
    contexts: ContextTemplates,
    second_moments: Mapping[str, Tensor],
    clients: list[Rounds],
) -> PooledResult:
    """Edit all clients' cases, round after round, as one party with MEMIT itself."""
    began = time.perf_counter()
    editor = MemitEditor(lm, memit, contexts, second_moments)
    deltas: dict[str, Tensor] = {}
    for index in range(settings.num_rounds):
        requests = [case.request for rounds in clients for case in rounds[index]]
        result = editor.edit(
            requests,
            start=deltas,
            progress=ProgressLog("pooled: targets", len(requests)),
            **pooled_options(settings),
        )
        deltas = result.deltas
    cases = [case for rounds in clients for edits in rounds for case in edits]
    with applied_deltas(lm, deltas):
        progress = ProgressLog("pooled: prompts scored", len(cases))
        sums = evaluate_cases(lm, cases, progress=progress).sums
    return PooledResult(deltas, sums, time.perf_counter() - began)


def relative_gaps(
    merged: Mapping[str, Tensor], pooled: Mapping[str, Tensor]
) -> dict[str, float]:
    """Return ``||merged - pooled||_F / ||pooled||_F`` of every parameter."""
    return {
        name: float((merged[name] - delta).norm() / delta.norm())
        for name, delta in pooled.items()
    }
