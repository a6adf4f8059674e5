"""What one evaluation case scored, prompt by prompt: one line of the results file."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from flwr_collabedit.evaluation.metrics import MetricSums


class ScoredCase(Protocol):
    """Anything that has one value per metric for one case."""

    def metrics(self) -> Mapping[str, float]:
        """Return the case's value of every metric that it defines."""


class TargetScore(BaseModel):
    """How well a model that reads a prompt and a target predicts the target.

    Attributes
    ----------
    target : str
        The target's text.
    loss : float
        Mean over the target's tokens of their negative log probability, in nats, each
        token given the prompt and the tokens before it (teacher forcing). The mean,
        not the sum, so that a longer target is not less likely for its length.
    token_accuracy : float
        Fraction of the target's tokens that are the model's likeliest, in [0, 1].
    correct : bool
        Whether all of them are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: str
    loss: float
    token_accuracy: float
    correct: bool


class PromptScore(BaseModel):
    """The target that a prompt should get, and the one that must not win.

    Attributes
    ----------
    prompt : str
        The complete prompt.
    expected : TargetScore
        The new target on rewrite and paraphrase prompts; the answer before the edit
        on questions that the edit must not change.
    rival : TargetScore or None
        The other of the two; ``None`` where the case defines no contest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str
    expected: TargetScore
    rival: TargetScore | None = None


class MultiHopScore(BaseModel):
    """How the wordings of one question were answered, each with every right answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: tuple[PromptScore, ...]

    @property
    def correct(self) -> bool:
        """Whether a wording gets a right answer, all its tokens the likeliest.

        Any of them will do, as for MQuAKE (Zhong et al., 2023, EMNLP), which shows the
        model examples first; here it is asked as it is. Since every token is the
        likeliest after those before it, the model writes that by greedy decoding.
        """
        return any(prompt.expected.correct for prompt in self.prompts)


class CaseScore(BaseModel):
    """The scores of one case; ``model_dump_json()`` gives its one line of JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case_id: int | str
    rewrite: PromptScore
    paraphrases: tuple[PromptScore, ...] = ()
    neighborhood: tuple[PromptScore, ...] = ()
    same_subject: tuple[PromptScore, ...] = ()
    multi_hop: tuple[MultiHopScore, ...] = ()

    def metrics(self) -> dict[str, float]:
        """Return the mean over prompts of every metric that the case defines.

        ``success`` is 1 where the expected target is strictly likelier than its rival:
        a tie fails. ``magnitude`` is the difference ``exp(-loss) - exp(-rival loss)``.
        ``target-loss`` is the loss of the new target on the rewrite prompt,
        ``multi-hop-accuracy`` the fraction of the multi-hop questions answered.
        """
        hops = [question.correct for question in self.multi_hop]
        return {
            "target-loss": self.rewrite.expected.loss,
            **_metrics_of("efficacy", [self.rewrite]),
            **_metrics_of("paraphrase", self.paraphrases),
            **_metrics_of("neighborhood", self.neighborhood),
            **_metrics_of("retention", self.same_subject),
            **({"multi-hop-accuracy": fmean(hops)} if hops else {}),
        }


def sums(scores: Iterable[ScoredCase]) -> MetricSums:
    """Return the sums over cases of all their metrics, exact for any split of them."""
    return MetricSums.merge(MetricSums.of(score.metrics()) for score in scores)


def _metrics_of(kind: str, prompts: Sequence[PromptScore]) -> dict[str, float]:
    if not prompts:
        return {}
    values = {
        f"{kind}-accuracy": fmean(prompt.expected.correct for prompt in prompts),
        f"{kind}-token-accuracy": fmean(p.expected.token_accuracy for p in prompts),
    }
    contests = [(p.expected.loss, p.rival.loss) for p in prompts if p.rival is not None]
    if contests:
        values[f"{kind}-success"] = fmean(loss < rival for loss, rival in contests)
        values[f"{kind}-magnitude"] = fmean(
            math.exp(-loss) - math.exp(-rival) for loss, rival in contests
        )
    return values
