"""What an edit has done to the rest of the model, as a client measures it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor

from flwr_collabedit.evaluation.metrics import MetricSums, prefixed
from flwr_collabedit.evaluation.model_health import HealthProbe
from flwr_collabedit.evaluation.perplexity import text_loss
from flwr_collabedit.messages.payloads import BASE
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import read_weight


@dataclass(frozen=True)
class HealthTexts:
    """What a client holds a model against; both may be empty.

    Attributes
    ----------
    texts : tuple of str
        Held-out text, for perplexity.
    prompts : tuple of str
        Neutral prompts, for the divergence from the base model.
    """

    texts: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()


@lru_cache(maxsize=4)
def base_health(lm: LanguageModel, held: HealthTexts) -> tuple[HealthProbe, MetricSums]:
    """Return the probe and the base model's loss on the texts, once a process.

    The model must be without deltas.
    """
    probe = HealthProbe.of(lm, held.texts, held.prompts)
    return probe, prefixed(BASE, text_loss(lm, held.texts))


def weight_norms(lm: LanguageModel, parameters: Sequence[str]) -> MetricSums:
    """Return the entrywise L1 and the Frobenius norm of every edited weight."""
    values = {}
    for name in parameters:
        weight = read_weight(lm.model, name).double()
        values[f"l1/{name}"] = float(weight.abs().sum())
        values[f"l2/{name}"] = float(weight.norm())
    return MetricSums.of(values)


def delta_norms(deltas: Mapping[str, Tensor]) -> MetricSums:
    """Return the entrywise L1 norm of every cumulative delta."""
    return MetricSums.of(
        {f"delta-l1/{name}": float(delta.abs().sum()) for name, delta in deltas.items()}
    )
