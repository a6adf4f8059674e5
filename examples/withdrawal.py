"""D4S on the embedded model: rounds are one batch, a withdrawal leaves no trace.

``python -m examples.withdrawal``, offline; 4 parties, 20 rounds, 80 edits, float64.
"""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch
from flwr.app import Context
from torch import Tensor

from flwr_collabedit.algebra.history import EditHistory
from flwr_collabedit.algebra.priors import ridge_priors
from flwr_collabedit.client import EditingClient
from flwr_collabedit.client_app import make_client_app
from flwr_collabedit.data.fact_world import embedded_cases, embedded_corpus
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import generate_contexts
from flwr_collabedit.editors.covariance import estimate_second_moments
from flwr_collabedit.editors.editor import ModelEdit
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.messages.payloads import read_deltas
from flwr_collabedit.models.fingerprint import describe
from flwr_collabedit.models.loading import EMBEDDED_MODEL, load_language_model
from flwr_collabedit.strategies import CollabEditStrategy, Withdrawal
from simulations.in_process import InProcessGrid

PARTIES, ROUNDS, GONE = 4, 20, 2
Rounds = Sequence[Sequence[EvaluationCase]]

lm = load_language_model("embedded", dtype="float64")
memit = MemitConfig.from_published(EMBEDDED_MODEL / "edit.json")
contexts = generate_contexts(lm, starters=("The", "In", "People"))
moments = estimate_second_moments(
    lm, memit.layers, embedded_corpus(), num_samples=4000, corpus_name="embedded"
)
model = describe(lm, memit.layers)
cases = embedded_cases(PARTIES * ROUNDS, subjects="all")
parties = [[[cases[r * PARTIES + p]] for r in range(ROUNDS)] for p in range(PARTIES)]


def run(folder: Path, parties: Sequence[Rounds], *withdrawals: str) -> list[Tensor]:
    """Return the edited weights' deltas after all rounds."""

    def client_fn(context: Context) -> EditingClient:
        party = int(context.node_config["partition-id"])
        name = f"party-{party}"
        return EditingClient(lm, parties[party], name=name, state_folder=folder / name)

    strategy = CollabEditStrategy(
        model,
        ridge_priors(moments, memit.second_moment_weight),
        layer_schedule="frozen",
        history="d4s",
        withdrawals=[Withdrawal.parse(text) for text in withdrawals],
        hyperparameters=memit.to_json(),
        contexts=contexts.to_json(),
        wire_dtype="float64",
        evaluate=False,
    )
    grid = InProcessGrid(make_client_app(client_fn), PARTIES)
    result = strategy.start(grid, num_rounds=len(parties[0]))
    return list(read_deltas(result.arrays, model).values())


def compare(what: str, found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Print how far apart two sets of deltas are."""
    pairs = list(zip(found, expected, strict=True))
    gap = max(float((a - b).norm() / b.norm()) for a, b in pairs)
    same = all(torch.equal(a, b) for a, b in pairs)
    bits = "the same bits" if same else "not the same bits"
    print(f"{what}: largest relative gap {gap:.1e}, {bits}")


with TemporaryDirectory() as temporary:
    folder = Path(temporary)
    rounds = run(folder, parties)
    order = Random(0).sample(range(ROUNDS), ROUNDS)
    shuffled = run(folder, [[own[r] for r in order] for own in parties])
    withdrawn = run(folder, [[*own, []] for own in parties], f"client:party-{GONE}@21")
    never = [[[]] * ROUNDS if p == GONE else own for p, own in enumerate(parties)]
    without = run(folder, never)

editor = MemitEditor(lm, memit, contexts, moments)
batch = editor.edit(
    [case.request for case in cases],
    layer_schedule="frozen",
    start=ModelEdit(history=EditHistory("d4s")),
).deltas
compare("20 rounds against one batch", rounds, list(batch.values()))
compare("20 rounds in another order", shuffled, rounds)
compare("a party withdrawn after round 20, against never", withdrawn, without)
