"""Do answers and residuals tell written edits from others? On the embedded model.

``python -m benchmarks.presence`` writes half of the edits once and prints the quantiles
of both measures for both halves; ``docs/conflicts.md`` has them.
"""

import torch
from torch import Tensor

from flwr_collabedit.data.fact_world import embedded_cases, embedded_corpus
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import generate_contexts
from flwr_collabedit.editors.covariance import estimate_second_moments
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.editors.residuals import clamp_fractions, relative_residuals
from flwr_collabedit.editors.targets import optimize_targets
from flwr_collabedit.evaluation.presence import answers_already
from flwr_collabedit.models.loading import EMBEDDED_MODEL, load_language_model
from flwr_collabedit.models.weights import applied_deltas

NUM_EDITS = 200
QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)


def main() -> None:
    lm = load_language_model("embedded")
    memit = MemitConfig.from_published(EMBEDDED_MODEL / "edit.json")
    moments = estimate_second_moments(
        lm, memit.layers, embedded_corpus(), num_samples=4000, corpus_name="embedded"
    )
    contexts = generate_contexts(lm)
    requests = [case.request for case in embedded_cases(NUM_EDITS, subjects="all")]
    on_base = optimize_targets(lm, requests, memit, contexts)
    half = NUM_EDITS // 2
    editor = MemitEditor(lm, memit, contexts, moments)
    with applied_deltas(lm, editor.edit(requests[:half]).deltas):
        answers = torch.tensor(answers_already(lm, requests))
        left = relative_residuals(lm, requests, on_base, memit)
        moved = clamp_fractions(optimize_targets(lm, requests, memit, contexts), memit)
    for name, part in (("written", slice(half)), ("not written", slice(half, None))):
        print(f"{name}: {int(answers[part].sum())} of {half} answered already")
        print(f"  relative residual {_quantiles(left[part])}")
        print(f"  clamp fraction    {_quantiles(moved[part])}")


def _quantiles(values: Tensor) -> str:
    points = values.quantile(torch.tensor(QUANTILES, dtype=values.dtype))
    return " / ".join(f"{float(point):.2f}" for point in points)


if __name__ == "__main__":
    main()
