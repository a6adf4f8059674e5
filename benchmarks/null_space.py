"""What AlphaEdit's two numbers do on the embedded model.

``python -m benchmarks.null_space`` prints, for each edited layer and threshold, in how
many directions edits may move it and how much of the keys lies in the others: of the
corpus's and of the edited subjects'. Then Scores of one batch of edits for each
threshold and ``l2``, with the same targets, MEMIT's first.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from flwr_collabedit.algebra.projection import null_space_basis
from flwr_collabedit.data.fact_world import embedded_cases, embedded_corpus
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.editors.alpha_edit_config import AlphaEditConfig
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates, generate_contexts
from flwr_collabedit.editors.covariance import estimate_second_moments
from flwr_collabedit.editors.hyperparameters import hyperparameters_for
from flwr_collabedit.editors.keys import collect_keys
from flwr_collabedit.editors.kinds import target_config
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.editors.targets import optimize_targets
from flwr_collabedit.evaluation.evaluate import evaluate_cases
from flwr_collabedit.evaluation.metrics import summarize
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.loading import load_language_model
from flwr_collabedit.models.weights import applied_deltas

STARTERS = ("The", "In", "People", "Experts", "Visitors")
MEASURES = ("Score", "accuracy_score", "EA", "PA", "NA", "retention")


def main(
    edits: Annotated[int, typer.Option(help="edits of one batch")] = 200,
    seed: int = 0,
    thresholds: str = "0.02,0.1,0.5",
    l2: Annotated[str, typer.Option(help="comma-separated")] = "0.1,1,10",
) -> None:
    lm = load_language_model("embedded")
    memit = target_config(hyperparameters_for(lm))
    contexts = generate_contexts(lm, starters=STARTERS, seed=seed)
    moments = estimate_second_moments(
        lm,
        memit.layers,
        embedded_corpus(),
        num_samples=memit.second_moment_samples,
        corpus_name="embedded",
    )
    cases = embedded_cases(edits, subjects="all", seed=seed)
    bounds, weights = ([float(one) for one in t.split(",")] for t in (thresholds, l2))
    requests = [case.request for case in cases]
    keys = collect_keys(lm, requests, memit.layers, contexts)
    named = {lm.weight_name(layer): found for layer, found in keys.items()}
    show("Directions", directions(moments, named, bounds))
    configs = [memit, *(alpha(memit, a, b) for a in bounds for b in weights)]
    show(f"{edits} edits, seed {seed}", scores(lm, configs, contexts, moments, cases))


def directions(
    moments: Mapping[str, Tensor], keys: Mapping[str, Tensor], bounds: Sequence[float]
) -> Iterator[dict[str, str]]:
    """Say what each threshold leaves to edits, and what to the keys."""
    for layer, (name, moment) in enumerate(moments.items()):
        values = torch.linalg.eigvalsh(moment.double())
        for bound in bounds:
            basis = null_space_basis(moment, bound)
            corpus = torch.trace(basis.T @ moment.double() @ basis) / values.sum()
            inside = (basis.T @ keys[name]).square().sum() / keys[name].square().sum()
            yield {
                "layer": str(layer),
                "eigenvalues": f"{values[0]:.2g} - {values[-1]:.2g}",
                "median": f"{values[len(values) // 2]:.2g}",
                "threshold": f"{bound:g}",
                "directions": f"{basis.shape[1]} of {len(values)}",
                "corpus keys kept, %": f"{100 * (1 - float(corpus)):.1f}",
                "subjects' keys kept, %": f"{100 * (1 - float(inside)):.1f}",
            }


def alpha(memit: MemitConfig, threshold: float, l2: float) -> AlphaEditConfig:
    """Return AlphaEdit's configuration with MEMIT's targets."""
    shared = memit.model_dump(exclude={"editor", "second_moment_weight"})
    return AlphaEditConfig(**shared, nullspace_threshold=threshold, l2=l2)


def scores(
    lm: LanguageModel,
    configs: Sequence[MemitConfig],
    contexts: ContextTemplates,
    moments: Mapping[str, Tensor],
    cases: Sequence[EvaluationCase],
) -> Iterator[dict[str, str]]:
    """Write the same targets with each configuration, and score them."""
    requests = [case.request for case in cases]
    z = optimize_targets(lm, requests, configs[0], contexts).z
    for config in configs:
        deltas = MemitEditor(lm, config, contexts, moments).write(requests, z).deltas
        with applied_deltas(lm, deltas):
            found = summarize(evaluate_cases(lm, cases).sums)
        name, l2 = "MEMIT", ""
        if isinstance(config, AlphaEditConfig):
            name, l2 = f"{config.nullspace_threshold:g}", f"{config.l2:g}"
        yield {
            "threshold": name,
            "l2": l2,
            **{one: f"{found[one] or 0:.1f}" for one in MEASURES},
        }


def show(title: str, rows: Iterator[dict[str, str]]) -> None:
    found = list(rows)
    table = Table(*found[0], title=title)
    for row in found:
        table.add_row(*row.values())
    Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)
