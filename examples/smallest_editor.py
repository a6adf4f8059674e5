"""The smallest editor: one gradient step on the edited weights, for all facts at once.

docs/adding_an_editor.md goes through it. Run it with ``python -m
examples.smallest_editor``.
"""

import math
from collections.abc import Sequence

from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.editors.editor import EditResult, ModelEdit, Progress
from flwr_collabedit.editors.label_gradients import label_gradients
from flwr_collabedit.evaluation.scoring import score_cases
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.loading import load_language_model
from flwr_collabedit.models.weights import applied_deltas


class GradientStepEditor:
    """Steps against the gradient of the facts' loss in the down projections.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    layers : sequence of int
        Edited layers.
    step_size : float
        Of the step, > 0.
    """

    def __init__(
        self, lm: LanguageModel, layers: Sequence[int], step_size: float
    ) -> None:
        lm.check_layers(layers)
        self._lm, self._step_size = lm, step_size
        self._names = [lm.weight_name(layer) for layer in layers]

    def edit(
        self,
        requests: Sequence[EditRequest],
        *,
        start: ModelEdit | None = None,
        progress: Progress | None = None,
    ) -> EditResult:
        """Return what writes ``requests`` on top of ``start``, see `Editor.edit`."""
        start = start or ModelEdit()
        with applied_deltas(self._lm, start.deltas):
            pairs = label_gradients(self._lm, self._names, requests, progress=progress)
        deltas = {
            # A weight's gradient is G K^T: keys K, gradients G of what it puts out.
            name: start.deltas.get(name, 0.0) - self._step_size * gradients @ keys.T
            for name, (keys, gradients) in pairs.items()
        }
        return EditResult(deltas)


def fact(subject: str, capital: str) -> EditRequest:
    """Return that a country has this capital."""
    return EditRequest(
        case_id=subject,
        prompt="The capital of {} is",
        subject=subject,
        target_new=capital,
    )


def main() -> None:
    """Edit one fact of the embedded model; print what becomes of it and of another."""
    lm = load_language_model("embedded")
    editor = GradientStepEditor(lm, layers=(0, 1, 2), step_size=3.0)
    asked = [fact("France", "Rome"), fact("Japan", "Tokyo")]
    for deltas in ({}, editor.edit(asked[:1]).deltas):
        with applied_deltas(lm, deltas):
            scored = score_cases(lm, [EvaluationCase(request=one) for one in asked])
        for request, case in zip(asked, scored, strict=True):
            share = math.exp(-case.rewrite.expected.loss)
            print(f"{request.subject}: {request.target_new} {share:.1%}", end="  ")
        print()


if __name__ == "__main__":
    main()
