"""Two parties edit one model without showing each other their facts.

``python examples/edit_together.py``, offline, on the embedded model.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from flwr.app import Context

from flwr_collabedit.algebra.priors import ridge_priors
from flwr_collabedit.client import EditingClient
from flwr_collabedit.client_app import make_client_app
from flwr_collabedit.data.fact_world import embedded_corpus
from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import generate_contexts
from flwr_collabedit.editors.covariance import estimate_second_moments
from flwr_collabedit.evaluation.continuation import continue_greedily
from flwr_collabedit.messages.payloads import read_deltas
from flwr_collabedit.models.fingerprint import describe
from flwr_collabedit.models.loading import EMBEDDED_MODEL, load_language_model
from flwr_collabedit.models.weights import applied_deltas
from flwr_collabedit.strategies import CollabEditStrategy
from simulations.in_process import InProcessGrid

FACTS = [[("France", "Rome")], [("Japan", "Madrid")]]  # one list a party
PROMPT = "The capital of {} is"

lm = load_language_model("embedded")
memit = MemitConfig.from_published(EMBEDDED_MODEL / "edit.json")
moments = estimate_second_moments(
    lm, memit.layers, embedded_corpus(), num_samples=4000, corpus_name="embedded"
)
parties = [
    [
        EvaluationCase(
            request=EditRequest(
                case_id=subject, prompt=PROMPT, subject=subject, target_new=target
            )
        )
        for subject, target in facts
    ]
    for facts in FACTS
]

with TemporaryDirectory() as folder:

    def client_fn(context: Context) -> EditingClient:
        """Return the party that Flower asks for."""
        index = int(context.node_config["partition-id"])
        return EditingClient(
            lm,
            [parties[index]],
            name=f"party-{index}",
            state_folder=Path(folder) / str(index),
        )

    strategy = CollabEditStrategy(
        describe(lm, memit.layers),
        ridge_priors(moments, memit.second_moment_weight),
        hyperparameters=memit.to_json(),
        contexts=generate_contexts(lm).to_json(),
    )
    grid = InProcessGrid(make_client_app(client_fn), num_clients=len(parties))
    result = strategy.start(grid, num_rounds=1)

prompts = [PROMPT.format(subject) for facts in FACTS for subject, _ in facts]
prompts.append(PROMPT.format("Italy"))
before = continue_greedily(lm, prompts, [1] * len(prompts))
with applied_deltas(lm, read_deltas(result.arrays, strategy.model)):
    after = continue_greedily(lm, prompts, [1] * len(prompts))
for prompt, old, new in zip(prompts, before, after, strict=True):
    print(f"{prompt}{old} -> {new.strip()}")
