"""How a client scores its own cases, and others' that it has taken over."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.evaluation.case_score import sums
from flwr_collabedit.evaluation.evaluate import Evaluation, evaluate_cases
from flwr_collabedit.evaluation.metrics import MetricSums, prefixed
from flwr_collabedit.evaluation.text_quality import TextQuality
from flwr_collabedit.files import replacing
from flwr_collabedit.messages.payloads import INACTIVE, RECEIVED, round_prefix
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.progress import ProgressLog

KnownCase = Callable[[str], EvaluationCase]
_BY_ROUND = ("efficacy-accuracy", "efficacy-success")


@dataclass(frozen=True)
class ClientScores:
    """Scores on the model as it is, with whatever deltas are applied.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    name : str
        The client's, for progress and file names.
    results_folder : Path or None
        Where per-case scores go, one JSON line a case.
    known_case : callable or None
        Gives the case behind another client's mediator vector, by its provenance.
    text_quality : TextQuality or None
        Free text that is written about the client's own cases.
    """

    lm: LanguageModel
    name: str
    results_folder: Path | None = None
    known_case: KnownCase | None = None
    text_quality: TextQuality | None = None

    def own(
        self, by_round: Mapping[int, Sequence[EvaluationCase]], server_round: int
    ) -> MetricSums:
        """Return the sums over a client's cases, and the efficacy of each round's."""
        cases = [case for found in by_round.values() for case in found]
        progress = ProgressLog(f"{self.name}: prompts scored", len(cases))
        evaluation = evaluate_cases(
            self.lm, cases, text_quality=self.text_quality, progress=progress
        )
        self._write(evaluation, server_round)
        total, start = evaluation.sums, 0
        for number, found in by_round.items():
            own = sums(evaluation.scores[start : start + len(found)])
            total = total + prefixed(round_prefix(number), own, _BY_ROUND)
            start += len(found)
        return total

    def inactive(self, cases: Sequence[EvaluationCase]) -> MetricSums:
        """Return the efficacy of edits that were left out or withdrawn."""
        if not cases:
            return MetricSums()
        found = evaluate_cases(self.lm, cases).sums
        return prefixed(INACTIVE, found, _BY_ROUND)

    def received(self, provenances: Sequence[str]) -> MetricSums:
        """Return the scores of others' facts, where they are known."""
        if self.known_case is None or not provenances:
            return MetricSums()
        cases = [self.known_case(provenance) for provenance in provenances]
        return prefixed(RECEIVED, evaluate_cases(self.lm, cases).sums)

    def _write(self, evaluation: Evaluation, server_round: int) -> None:
        if self.results_folder is None:
            return
        path = self.results_folder / f"{self.name}-round-{server_round}.jsonl"
        with replacing(path) as draft:
            draft.write_text(evaluation.to_json_lines(), encoding="utf-8")
