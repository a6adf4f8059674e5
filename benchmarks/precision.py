"""What weights in half precision cost an edit: on the embedded model.

``python -m benchmarks.precision`` edits the same facts in float32, bfloat16 and float16
and prints each one's Score and how far its deltas are from float32's.
"""

from torch import Tensor
from torch.linalg import vector_norm

from flwr_collabedit.data.fact_world import embedded_cases, embedded_corpus
from flwr_collabedit.editors.contexts import ContextTemplates, generate_contexts
from flwr_collabedit.editors.covariance import estimate_second_moments
from flwr_collabedit.editors.hyperparameters import hyperparameters_for
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.evaluation.metrics import MetricSums, summarize
from flwr_collabedit.evaluation.scoring import score_cases
from flwr_collabedit.models.loading import load_language_model
from flwr_collabedit.models.weights import applied_deltas

NUM_EDITS = 100
NUM_DOCUMENTS = 1000


def main() -> None:
    contexts = generate_contexts(load_language_model("embedded"))
    base: dict[str, Tensor] = {}
    print("weights     Score   distance of each layer's delta from float32's")
    for dtype in ("float32", "bfloat16", "float16"):
        score, deltas = edit(dtype, contexts)
        base = base or deltas
        apart = [
            vector_norm(deltas[name] - delta) / vector_norm(delta)
            for name, delta in base.items()
        ]
        print(f"{dtype:9} {score:7.2f}   " + ", ".join(f"{one:.2%}" for one in apart))


def edit(dtype: str, contexts: ContextTemplates) -> tuple[float, dict[str, Tensor]]:
    """Return the Score of an edit and its deltas."""
    lm = load_language_model("embedded", dtype=dtype)
    memit = hyperparameters_for(lm)
    moments = estimate_second_moments(
        lm,
        memit.layers,
        embedded_corpus(),
        num_samples=NUM_DOCUMENTS,
        corpus_name="embedded",
    )
    cases = embedded_cases(NUM_EDITS, subjects="real")
    requests = [case.request for case in cases]
    deltas = MemitEditor(lm, memit, contexts, moments).edit(requests).deltas
    with applied_deltas(lm, deltas):
        scores = score_cases(lm, cases)
    found = summarize(
        sum((MetricSums.of(one.metrics()) for one in scores), MetricSums())
    )
    return float(found["Score"] or 0), deltas


if __name__ == "__main__":
    main()
