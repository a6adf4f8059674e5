"""Damage to what an edit must not change: perplexity, divergence, size of weights.

Huang, Liu et al., "Reasons and Solutions for the Decline in Model Performance after
    Editing" (D4S), NeurIPS 2024: perplexity in equation 1, L1 norms in section 4.2.

What clients measure is sent as sums and counts, so that it adds over clients.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from flwr_collabedit.evaluation.divergence import kl_to_base, next_token_distributions
from flwr_collabedit.evaluation.metrics import MetricSums
from flwr_collabedit.evaluation.perplexity import text_loss
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import read_weight

KL_TO_BASE = "kl-to-base"


@dataclass(frozen=True, eq=False)
class HealthProbe:
    """What a model is held against, read once on the base model.

    Attributes
    ----------
    texts : tuple of str
        Held-out text; none for no perplexity.
    prompts : tuple of str
        Neutral prompts; none for no divergence.
    base : Tensor
        The base model's :func:`next_token_distributions` after the prompts.
    """

    texts: tuple[str, ...]
    prompts: tuple[str, ...]
    base: Tensor

    @classmethod
    def of(
        cls, lm: LanguageModel, texts: Sequence[str], prompts: Sequence[str]
    ) -> Self:
        """Return the probe of ``lm``, which must be without deltas now."""
        return cls(tuple(texts), tuple(prompts), next_token_distributions(lm, prompts))

    def measure(self, lm: LanguageModel, *, batch_size: int = 64) -> MetricSums:
        """Return the sums of ``text-loss`` and ``kl-to-base`` of the model as it is.

        ``text-loss`` counts tokens, see :func:`text_loss`; ``kl-to-base`` prompts.

        Raises
        ------
        NonFiniteOutputError
            If the model's logits are not finite.
        """
        now = next_token_distributions(lm, self.prompts, batch_size=batch_size)
        divergences = kl_to_base(self.base, now).tolist()
        return MetricSums.merge(
            MetricSums.of({KL_TO_BASE: divergence}) for divergence in divergences
        ) + text_loss(lm, self.texts, batch_size=batch_size)


def mean_abs_weights(lm: LanguageModel, names: Iterable[str]) -> dict[str, float]:
    """Return ``mean |W|`` of the named weights as they are: D4S's L1 norm of a layer.

    The mean over entries, so that layers of different size compare.
    """
    return {name: _mean_abs(read_weight(lm.model, name)) for name in names}


def mean_abs_deltas(deltas: Mapping[str, Tensor]) -> dict[str, float]:
    """Return ``mean |Delta|`` of every delta, the mean over its entries."""
    return {name: _mean_abs(delta) for name, delta in deltas.items()}


def _mean_abs(matrix: Tensor) -> float:
    return float(matrix.double().abs().mean())
