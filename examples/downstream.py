"""What edits do to tasks that they were not to touch, by lm-evaluation-harness.

``python -m examples.downstream``, offline, on the embedded model; needs the extra
``downstream``.
"""

from flwr_collabedit.data.fact_world import embedded_cases, embedded_corpus
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import generate_contexts
from flwr_collabedit.editors.covariance import estimate_second_moments
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.evaluation.downstream import EXAMPLE_TASKS, evaluate_downstream
from flwr_collabedit.models.loading import EMBEDDED_MODEL, load_language_model
from flwr_collabedit.models.weights import applied_deltas

NUM_EDITS = (0, 200)
TASKS = ("world_choice", "world_text")

lm = load_language_model("embedded")
memit = MemitConfig.from_published(EMBEDDED_MODEL / "edit.json")
moments = estimate_second_moments(
    lm, memit.layers, embedded_corpus(), num_samples=6000, corpus_name="embedded"
)
editor = MemitEditor(lm, memit, generate_contexts(lm), moments)

for num_edits in NUM_EDITS:
    requests = [case.request for case in embedded_cases(max(NUM_EDITS))][:num_edits]
    with applied_deltas(lm, editor.edit(requests).deltas if requests else {}):
        found = evaluate_downstream(lm, TASKS, EXAMPLE_TASKS)
    values = [
        f"{task} {metric} {value:.3f}"
        for task, metrics in found.items()
        for metric, value in metrics.items()
    ]
    print(num_edits, "edits:", ", ".join(values))
