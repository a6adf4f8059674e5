"""What the edited model writes when it writes freely: fluency and consistency.

The generation measures of CounterFact: Meng et al. "Locating and Editing Factual
    Associations in GPT", NeurIPS 2022, and its code.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.evaluation.batches import Progress
from flwr_collabedit.evaluation.fluency import fluency
from flwr_collabedit.evaluation.sampling import TOP_K, Draw, sample_continuations
from flwr_collabedit.models.language_model import LanguageModel


class Reference(Protocol):
    """Anything that holds a case's texts against known ones."""

    def of(self, case: EvaluationCase, texts: Sequence[str]) -> float | None:
        """Return a score in [0, 1], or ``None`` where nothing is known."""


@dataclass(frozen=True)
class TextQuality:
    """How free text is written and what it is held against.

    Attributes
    ----------
    num_tokens : int
        New tokens of each text. The published code stops at 100 tokens with the
        prompt. Texts of another length have another fluency.
    top_k : int
        Each token is drawn from so many likeliest ones.
    seed : int
        Of the draws.
    reference : Reference or None
        Such as a `flwr_collabedit.evaluation.reference_score.ReferenceScore`; ``None``
        measures no consistency.
    """

    num_tokens: int = 100
    top_k: int = TOP_K
    seed: int = 0
    reference: Reference | None = None


class CaseTexts(BaseModel):
    """The texts of one case, prompts included; summed like a ``CaseScore``.

    Attributes
    ----------
    fluency : float
        Mean over the texts of their weighted n-gram entropy, in bits.
    consistency : float or None
        All texts' similarity with the reference texts, in [0, 1].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case_id: int | str
    texts: tuple[str, ...]
    fluency: float
    consistency: float | None

    def metrics(self) -> dict[str, float]:
        """Return the case's value of both measures, as far as it has them."""
        values = {"fluency": self.fluency}
        if self.consistency is not None:
            values["consistency"] = self.consistency
        return values


def write_texts(
    lm: LanguageModel,
    cases: Sequence[EvaluationCase],
    quality: TextQuality,
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> list[CaseTexts]:
    """Return what the model writes of every case's subject, and how good that is.

    Parameters
    ----------
    lm : LanguageModel
        The model; it is not changed.
    cases : sequence of EvaluationCase
        One text is written for each of a case's ``generation_prompts``; where it has
        none, for its rewrite prompt and each paraphrase.
    quality : TextQuality
        Length, draws and references.
    batch_size : int
        Texts written together, >= 1.
    progress : callable, optional
        Called after every batch with the number of texts done and of all.

    Raises
    ------
    RequestFormatError
        If a prompt leaves no room for its text in the model's context.
    NonFiniteOutputError
        If the model's logits are not finite.
    """
    asked = [_draws(case) for case in cases]
    unique = list(dict.fromkeys(draw for draws in asked for draw in draws))
    written = sample_continuations(
        lm,
        unique,
        quality.num_tokens,
        top_k=quality.top_k,
        seed=quality.seed,
        batch_size=batch_size,
        progress=progress,
    )
    # The published code too measures a text with its prompt.
    texts = {
        draw: draw.prompt + text for draw, text in zip(unique, written, strict=True)
    }
    return [
        _measured(case, [texts[draw] for draw in draws], quality.reference)
        for case, draws in zip(cases, asked, strict=True)
    ]


def _draws(case: EvaluationCase) -> list[Draw]:
    """Return the case's texts to write; CounterFact repeats prompts within a case."""
    prompts = case.generation_prompts
    seen: Counter[str] = Counter()
    draws = []
    for prompt in prompts or (case.rewrite_prompt, *case.paraphrase_prompts):
        draws.append(Draw(prompt, seen[prompt]))
        seen[prompt] += 1
    return draws


def _measured(
    case: EvaluationCase, texts: Sequence[str], reference: Reference | None
) -> CaseTexts:
    return CaseTexts(
        case_id=case.request.case_id,
        texts=tuple(texts),
        fluency=fmean(fluency(text) for text in texts),
        consistency=None if reference is None else reference.of(case, texts),
    )
