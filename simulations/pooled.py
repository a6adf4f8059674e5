"""The pooled reference: one party that holds every client's edits (GLOBAL-EDIT)."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from flwr_collabedit.algebra.history import EditHistory
from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.editors.editor import ModelEdit
from flwr_collabedit.editors.editor_config import EditorConfig
from flwr_collabedit.editors.kinds import EditorParts, make_editor
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.evaluation.evaluate import evaluate_cases
from flwr_collabedit.evaluation.metrics import MetricSums
from flwr_collabedit.models.codebook import Codebook, applied_edit
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.progress import ProgressLog
from simulations.experiment import text_quality
from simulations.settings import ExperimentSettings
from simulations.strategies import pooled_options


@dataclass(frozen=True)
class PooledResult:
    """Cumulative deltas ``(d_value, d_key)`` by parameter, their scores, the time."""

    deltas: dict[str, Tensor]
    sums: MetricSums
    seconds: float
    codebook: Codebook | None = None


def edit_pooled(
    settings: ExperimentSettings,
    lm: LanguageModel,
    config: EditorConfig,
    parts: EditorParts,
    written: Sequence[Sequence[EditRequest]],
    scored: Sequence[EvaluationCase],
) -> PooledResult:
    """Edit what all clients wrote, as one party with the editor itself.

    Round after round, as the clients did; with history ``d4s`` in one batch, which is
    what its rounds must equal.

    Parameters
    ----------
    settings, lm, config, parts
        Of the run.
    written : sequence of sequence of EditRequest
        By round.
    scored : sequence of EvaluationCase
        What is scored in the end.
    """
    began = time.perf_counter()
    editor = make_editor(lm, config, parts)
    # An editor that keeps targets has options that the others have not.
    options = pooled_options(settings) if isinstance(editor, MemitEditor) else {}
    edit = ModelEdit(
        history=EditHistory(settings.history, settings.beta_0, settings.beta_1)
    )
    if edit.history.is_from_base:
        written = [[request for requests in written for request in requests]]
    for requests in written:
        edit = editor.edit(
            requests,
            start=edit,
            progress=ProgressLog("pooled: edits", len(requests)),
            **options,
        )
    deltas = {**edit.deltas}
    with applied_edit(lm, deltas, edit.codebook):
        progress = ProgressLog("pooled: prompts scored", len(scored))
        quality = text_quality(settings)
        sums = evaluate_cases(lm, scored, text_quality=quality, progress=progress).sums
    return PooledResult(deltas, sums, time.perf_counter() - began, edit.codebook)


def relative_gaps(
    merged: Mapping[str, Tensor], pooled: Mapping[str, Tensor]
) -> dict[str, float]:
    """Return ``||merged - pooled||_F / ||pooled||_F`` of every parameter.

    A parameter that the pooled edit leaves as it is has none.
    """
    return {
        name: float((merged[name] - delta).norm() / delta.norm())
        for name, delta in pooled.items()
        if bool(delta.any())
    }
