"""Which question type harms a model: D4S's data-side study on the embedded model.

``python -m benchmarks.question_types``. The same facts are edited as direct generation
(DG), multiple choice (MC) and true or false (TF), one after another and as one batch.
Huang, Liu et al., "Reasons and Solutions for the Decline in Model Performance after
Editing" (D4S), NeurIPS 2024, section 3, relate the targets' perplexity to the growth of
the edited layers' L1 norm and to damage.
"""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import exp, log
from statistics import fmean, median
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from flwr_collabedit.data.fact_world import (
    default_world,
    embedded_cases,
    embedded_corpus,
)
from flwr_collabedit.data.held_out import (
    embedded_held_out_texts,
    embedded_neutral_prompts,
)
from flwr_collabedit.data.question_types import QuestionType, ask_as
from flwr_collabedit.data.question_wording import WORDINGS
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import generate_contexts
from flwr_collabedit.editors.covariance import estimate_second_moments
from flwr_collabedit.editors.editor import ModelEdit
from flwr_collabedit.editors.memit import Deltas, MemitEditor
from flwr_collabedit.editors.targets import Targets
from flwr_collabedit.evaluation.case_score import sums
from flwr_collabedit.evaluation.intervals import Estimate
from flwr_collabedit.evaluation.metrics import summarize
from flwr_collabedit.evaluation.model_health import (
    KL_TO_BASE,
    HealthProbe,
    mean_abs_deltas,
    mean_abs_weights,
)
from flwr_collabedit.evaluation.perplexity import perplexity_of
from flwr_collabedit.evaluation.scoring import score_cases
from flwr_collabedit.evaluation.target_perplexity import (
    TargetPerplexity,
    target_perplexities,
)
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.loading import EMBEDDED_MODEL, load_language_model
from flwr_collabedit.models.weights import applied_deltas

# Row of the tables: question type and wording.
QUESTIONS: dict[str, tuple[QuestionType, str]] = {
    "DG": ("direct-generation", ""),
    "MC": ("multiple-choice", "short"),
    "TF": ("true-false", "short"),
    "MC, one-token labels": ("multiple-choice", "numbers"),
    "TF, one-token labels": ("true-false", "numbers"),
}
LIKELY, UNLIKELY = "DG, likeliest of 8", "DG, unlikeliest of 8"
NUM_OFFERED = 8
NUM_TEXTS, NUM_PROMPTS = 1000, 500

Figures = dict[str, float]
Rows = dict[str, list[Figures]]
"""A table's rows by name, each with its figures seed by seed."""


class Study:
    """One draw of facts, and what a model is held against."""

    def __init__(
        self, lm: LanguageModel, editor: MemitEditor, num_edits: int, seed: int
    ) -> None:
        self.lm, self.editor, self.seed = lm, editor, seed
        self.cases = embedded_cases(num_edits, subjects="all", seed=seed)
        edited = {case.request.subject for case in self.cases}
        self.probe = HealthProbe.of(
            lm,
            embedded_held_out_texts(NUM_TEXTS, exclude=edited, seed=seed),
            embedded_neutral_prompts(NUM_PROMPTS, exclude=edited, seed=seed),
        )

    def edits(self) -> dict[str, list[EvaluationCase]]:
        """Return the facts as edits of every kind, by row of the tables."""
        kinds = {
            row: [self._asked(case, *question) for case in self.cases]
            for row, question in QUESTIONS.items()
        }
        ranked = [self._ranked(case) for case in self.cases]
        kinds[LIKELY] = [variants[0] for variants in ranked]
        kinds[UNLIKELY] = [variants[-1] for variants in ranked]
        return kinds

    def _asked(
        self, case: EvaluationCase, kind: QuestionType, wording: str
    ) -> EvaluationCase:
        objects = default_world().answers[case.request.relation_id]
        words = WORDINGS[wording or "d4s"]
        return ask_as(case, kind, objects, wording=words, seed=self.seed)

    def _ranked(self, case: EvaluationCase) -> list[EvaluationCase]:
        """Return the edit with drawn targets of its relation, likeliest first."""
        objects = default_world().answers[case.request.relation_id]
        others = [text for text in objects if text != case.target_true]
        rng = random.Random(f"{self.seed}/{case.request.case_id}")
        variants = [
            case.model_copy(
                update={
                    "request": case.request.model_copy(update={"target_new": target})
                }
            )
            for target in rng.sample(others, min(NUM_OFFERED, len(others)))
        ]
        found = target_perplexities(self.lm, [each.request for each in variants])
        order = sorted(range(len(found)), key=lambda i: found[i].perplexity)
        return [variants[i] for i in order]

    def in_sequence(
        self, cases: Sequence[EvaluationCase]
    ) -> tuple[Figures, list[float]]:
        """Edit fact after fact, each on the model that the last one left.

        Returns also the mean ``|update|`` of each edit, over all edited layers.
        """
        deltas: Deltas = {}
        norms, targets = [], []
        for case in cases:
            result = self.editor.edit([case.request], start=ModelEdit(deltas))
            norms.append(_mean_abs_change(result.deltas, deltas))
            targets.append(result.targets)
            deltas = result.deltas
        return self.figures(cases, deltas, targets), norms

    def as_batch(self, cases: Sequence[EvaluationCase]) -> Figures:
        """Edit all facts at once."""
        result = self.editor.edit([case.request for case in cases])
        return self.figures(cases, result.deltas, [result.targets])

    def figures(
        self,
        cases: Sequence[EvaluationCase],
        deltas: Deltas,
        targets: Sequence[Targets],
    ) -> Figures:
        """Return what the edited model answers, its norms and its damage."""
        before = sum(mean_abs_weights(self.lm, deltas).values())
        with applied_deltas(self.lm, deltas):
            after = sum(mean_abs_weights(self.lm, deltas).values())
            scores = summarize(sums(score_cases(self.lm, cases)))
            health = self.health()
        moved = [(each.z - each.initial).norm(dim=1) for each in targets]
        return {
            "z's loss": _mean([each.loss for each in targets]),
            "|z-h0|": _mean(moved),
            **{name: scores[name] or 0.0 for name in ("EA", "PA", "NA", "retention")},
            "|W| growth, %": 100 * (after / before - 1),
            "|Delta|/|W|, %": 100 * sum(mean_abs_deltas(deltas).values()) / before,
            **health,
        }

    def health(self) -> Figures:
        """Return the damage to the model as it is."""
        found = self.probe.measure(self.lm)
        return {
            "held-out PPL": perplexity_of(found) or 0.0,
            "KL, nats": found.mean(KL_TO_BASE) or 0.0,
        }


def main(
    edits: Annotated[int, typer.Option(help="facts of the batch, one a subject")] = 100,
    sequence: Annotated[int, typer.Option(help="of them one after another")] = 30,
    seeds: Annotated[int, typer.Option(help="draws: seeds 0, 1, ...")] = 3,
) -> None:
    """Print targets, damage and correlations."""
    torch.set_num_threads(1)
    lm = load_language_model("embedded")
    memit = MemitConfig.from_published(EMBEDDED_MODEL / "edit.json")
    moments = estimate_second_moments(
        lm,
        memit.layers,
        embedded_corpus(),
        num_samples=memit.second_moment_samples,
        corpus_name="embedded",
    )
    targets, one_by_one, batch, relations = (
        defaultdict[str, list[Figures]](list) for _ in range(4)
    )
    for seed in range(seeds):
        editor = MemitEditor(lm, memit, generate_contexts(lm, seed=seed), moments)
        study = Study(lm, editor, edits, seed)
        for outcomes in (one_by_one, batch):
            outcomes["unedited"].append(study.health())
        for row, cases in study.edits().items():
            found = target_perplexities(lm, [case.request for case in cases])
            figures, norms = study.in_sequence(cases[:sequence])
            perplexities = [each.perplexity for each in found[:sequence]]
            targets[row].append(_target_figures(found))
            one_by_one[row].append(figures)
            batch[row].append(study.as_batch(cases))
            relations[row].append(_correlations(perplexities, norms))
    console = Console(width=190)
    where = f"mean ± 95 % over {seeds} draws"
    console.print(_table(f"Targets on the unedited model, {where}", targets))
    console.print(_table(f"{sequence} edits one by one, {where}", one_by_one))
    console.print(_table(f"{edits} edits as one batch, {where}", batch))
    console.print(_table(f"Target PPL against mean |update|, {where}", relations))


def _target_figures(found: Sequence[TargetPerplexity]) -> Figures:
    return {
        "mean PPL": fmean(each.perplexity for each in found),
        "median PPL": median(each.perplexity for each in found),
        "exp(mean loss)": exp(fmean(log(each.perplexity) for each in found)),
        "input tokens": fmean(each.prompt_tokens for each in found),
        "target tokens": fmean(each.target_tokens for each in found),
    }


def _correlations(perplexities: Sequence[float], norms: Sequence[float]) -> Figures:
    """Return those of ranks (Spearman) and of logarithms (Pearson)."""
    both = torch.tensor([perplexities, norms], dtype=torch.float64)
    ranks = both.argsort(dim=1).argsort(dim=1).double()
    return {
        "Spearman": float(torch.corrcoef(ranks)[0, 1]),
        "Pearson of logs": float(torch.corrcoef(both.log())[0, 1]),
    }


def _mean_abs_change(now: Deltas, before: Deltas) -> float:
    changes = {name: delta - before.get(name, 0) for name, delta in now.items()}
    return fmean(mean_abs_deltas(changes).values())


def _mean(parts: Sequence[Tensor]) -> float:
    return float(torch.cat(list(parts)).double().mean())


def _table(title: str, rows: Mapping[str, list[Figures]]) -> Table:
    columns = dict.fromkeys(name for seeds in rows.values() for name in seeds[0])
    table = Table("", *columns, title=title)
    for row, seeds in rows.items():
        cells = [
            _cell([figures[name] for figures in seeds]) if name in seeds[0] else ""
            for name in columns
        ]
        table.add_row(row, *cells)
    return table


def _cell(values: Sequence[float]) -> str:
    found = Estimate.of(values)
    width = "" if found.half_width is None else f" ± {found.half_width:.2g}"
    return f"{found.mean:.4g}{width}"


if __name__ == "__main__":
    typer.run(main)
