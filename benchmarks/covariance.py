"""What a small sample's second moments cost, against the full ones, when editing.

``OMP_NUM_THREADS=1 python -m benchmarks.covariance``, on the embedded model: samples of
several multiples of ``d_key`` tokens, as they are and shrunk, against the documents
that its published hyperparameters ask for. For each: seconds of one core, relative
Frobenius distance to the full one, and the Scores of the same edits written with it.
The targets are the same for all, so that the matrix is all that differs.
``docs/covariance.md`` has the figures.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flwr_collabedit.algebra.shrinkage import shrunk
from flwr_collabedit.data.fact_world import embedded_cases, embedded_corpus
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import generate_contexts
from flwr_collabedit.editors.covariance import Estimate, estimate
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.editors.second_moment_source import second_moment_sources
from flwr_collabedit.editors.targets import optimize_targets
from flwr_collabedit.errors import SingularSystemError
from flwr_collabedit.evaluation.case_score import sums
from flwr_collabedit.evaluation.metrics import summarize
from flwr_collabedit.evaluation.scoring import score_cases
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.loading import EMBEDDED_MODEL, load_language_model
from flwr_collabedit.models.weights import applied_deltas

Moments = dict[str, Tensor]


@dataclass(frozen=True)
class Setting:
    """The edits that every matrix is tried on."""

    lm: LanguageModel
    memit: MemitConfig
    cases: Sequence[EvaluationCase]
    z: Tensor

    def scores(self, moments: Mapping[str, Tensor]) -> str:
        """Return Score, accuracy Score and NA, in percent."""
        editor = MemitEditor(self.lm, self.memit, generate_contexts(self.lm), moments)
        try:
            written = editor.write([case.request for case in self.cases], self.z)
        except SingularSystemError:
            return "singular"
        with applied_deltas(self.lm, written.deltas):
            found = summarize(sums(score_cases(self.lm, self.cases)))
        names = ("Score", "accuracy_score", "NA")
        return " / ".join(f"{found[name]:.1f}" for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=200)
    parser.add_argument(
        "--multiples", type=float, nargs="+", default=[0.5, 1, 2, 5, 10, 50]
    )
    options = parser.parse_args()
    setting = _setting(options.edits)
    full, seconds = _read(setting, num_samples=setting.memit.second_moment_samples)
    moments = _matrices(full)
    print(f"{options.edits} edits; Score / accuracy Score / NA")
    _show("full", full, seconds, "", "", setting.scores(moments))
    for multiple in options.multiples:
        for shrink in (False, True):
            found, seconds = _read(setting, multiple=multiple, shrink=shrink)
            own = _matrices(found)
            marks = ", ".join(f"{one.card.shrinkage:.4f}" for one in found.values())
            distance = torch.tensor(
                [float((own[n] - moments[n]).norm() / moments[n].norm()) for n in own]
            )
            _show(
                f"{multiple:g} x d_key",
                found,
                seconds,
                marks if shrink else "none",
                f"{float(distance.mean()):.3f}",
                setting.scores(own),
            )
    identities = {name: shrunk(matrix, 1.0) for name, matrix in moments.items()}
    print(f"a scaled identity in its place: {setting.scores(identities)}")


def _setting(num_edits: int) -> Setting:
    lm = load_language_model("embedded")
    memit = MemitConfig.from_published(EMBEDDED_MODEL / "edit.json")
    cases = embedded_cases(num_edits, subjects="all")
    requests = [case.request for case in cases]
    targets = optimize_targets(lm, requests, memit, generate_contexts(lm))
    return Setting(lm, memit, cases, targets.z)


def _read(setting: Setting, **goal: float) -> tuple[dict[int, Estimate], float]:
    """Return the second moments of a sample, and the seconds that they took."""
    began = time.process_time()
    sources = second_moment_sources(
        setting.lm,
        setting.memit.layers,
        corpus_name="embedded",
        **goal,  # type: ignore[arg-type]
    )
    found = estimate(setting.lm, sources, embedded_corpus())
    return found, time.process_time() - began


def _matrices(found: Mapping[int, Estimate]) -> Moments:
    return {one.card.source.weight: one.matrix for one in found.values()}


def _show(
    name: str,
    found: Mapping[int, Estimate],
    seconds: float,
    shrinkage: str,
    distance: str,
    scores: str,
) -> None:
    card = next(iter(found.values())).card
    print(
        f"{name:12} {card.num_tokens:6} tokens {seconds:6.2f} s  "
        f"shrinkage {shrinkage:24} distance {distance:6} {scores}",
        flush=True,
    )


if __name__ == "__main__":
    main()
