"""Which hidden states carry a fact to the answer, fact by fact.

Meng et al. "Locating and Editing Factual Associations in GPT", NeurIPS 2022, section 2;
the constants are those of its code, ``experiments/causal_trace.py`` of kmeng01/rome.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from flwr_collabedit.data.known_facts import KnownFact
from flwr_collabedit.evaluation.batches import Progress
from flwr_collabedit.locating.patched_forward import (
    Intervention,
    answer_probabilities,
    clean_probability,
    embedding_name,
)
from flwr_collabedit.locating.trace_settings import TraceSettings, windows
from flwr_collabedit.locating.traced_prompt import TracedPrompt
from flwr_collabedit.models.language_model import LanguageModel

Part = Literal["mlp", "attention"]
Kind = Literal["state", "mlp", "attention"]
"""What is restored: a block's output, or the outputs of its MLP or attention."""
Severed = Literal["nothing", "mlp", "attention"]


@dataclass(frozen=True)
class FactTrace:
    """The probability of one fact's answer, each a mean over the draws of noise.

    Attributes
    ----------
    fact : KnownFact
        What was asked.
    prompt : TracedPrompt
        The same as tokens.
    positions : tuple of int
        Where states were restored.
    clean, corrupted : float
        Without noise; with noise and nothing restored.
    restored : mapping
        By kind, shape ``(layer, position)``, float64: with noise and that restored.
        MLPs and attentions in a window of layers around ``layer``.
    entering : mapping
        By what was severed, shape ``(layer,)``, float64: with what enters the block at
        the subject's last token restored, and there the outputs of the MLPs (or
        attentions) of all layers frozen as the noise made them.
    """

    fact: KnownFact
    prompt: TracedPrompt
    positions: tuple[int, ...]
    clean: float
    corrupted: float
    restored: Mapping[Kind, Tensor]
    entering: Mapping[Severed, Tensor]


def trace_facts(
    lm: LanguageModel,
    facts: Sequence[KnownFact],
    settings: TraceSettings,
    *,
    progress: Progress | None = None,
) -> list[FactTrace]:
    """Return the trace of every fact, in their order.

    Parameters
    ----------
    lm : LanguageModel
        Not changed. Families without ``attention_projection`` have no ``attention``.
    facts : sequence of KnownFact
        At least one, all of which the model answers right.
    settings : TraceSettings
        With the same noise for all that is done to one fact; a fact's noise depends on
        the seed and on the facts before it.
    progress : callable, optional
        Called after every fact with the number done and of all.

    Raises
    ------
    RequestFormatError, SubjectNotFoundError
        If subject, prompt and answer of a fact are not apart in the model's tokens.
    """
    prompts = [TracedPrompt.of(lm, fact) for fact in facts]
    scale = settings.noise * embedding_std(lm, prompts)
    generator = torch.Generator().manual_seed(settings.seed)
    width = _embeddings(lm, prompts[0]).shape[1]
    traces = []
    for fact, prompt in zip(facts, prompts, strict=True):
        num_tokens = prompt.subject_last + 1 - prompt.subject_first
        shape = (settings.num_samples, num_tokens, width)
        noise = scale * torch.randn(shape, generator=generator)
        traces.append(_trace(lm, fact, prompt, noise, settings))
        if progress is not None:
            progress(len(traces), len(facts))
    return traces


def embedding_std(lm: LanguageModel, prompts: Sequence[TracedPrompt]) -> float:
    """Return the standard deviation of the entries of all subjects' embeddings."""
    entries = torch.cat([_embeddings(lm, prompt).flatten() for prompt in prompts])
    return float(entries.double().std())


@torch.no_grad()
def _embeddings(lm: LanguageModel, prompt: TracedPrompt) -> Tensor:
    """Return the embeddings of the subject's tokens, ``(subject token, d)``."""
    subject = prompt.input_ids[prompt.subject_first : prompt.subject_last + 1]
    embed = lm.model.get_submodule(embedding_name(lm))
    embeddings: Tensor = embed(torch.tensor(subject, device=lm.device))
    return embeddings.float()


def _trace(
    lm: LanguageModel,
    fact: KnownFact,
    prompt: TracedPrompt,
    noise: Tensor,
    settings: TraceSettings,
) -> FactTrace:
    last = prompt.subject_last
    positions = (last,) if settings.last_only else tuple(prompt.positions)
    parts = _modules(lm)
    blocks: list[tuple[str, ...]] = [
        (lm.block_name(layer),) for layer in range(lm.num_layers)
    ]
    restored: dict[Kind, list[tuple[str, ...]]] = {"state": blocks}
    severed: dict[Severed, tuple[str, ...]] = {"nothing": ()}
    for part, names in parts.items():
        restored[part] = [
            tuple(names[layer] for layer in window)
            for window in windows(lm.num_layers, settings)
        ]
        severed[part] = names
    one_by_one = [
        Intervention(position, restored=names)
        for by_layer in restored.values()
        for names in by_layer
        for position in positions
    ]
    entering = [
        Intervention(last, restored=names, frozen=frozen, spared=not names)
        for frozen in severed.values()
        for names in [(), *blocks[:-1]]
    ]
    probabilities = answer_probabilities(
        lm,
        prompt,
        noise,
        [Intervention(last), *one_by_one, *entering],
        batch_size=settings.batch_size,
    )
    means = probabilities.double().mean(dim=1)  # (intervention,)
    stop = 1 + len(one_by_one)
    by_kind = means[1:stop].view(len(restored), lm.num_layers, len(positions))
    by_severed = means[stop:].view(len(severed), lm.num_layers)
    return FactTrace(
        fact,
        prompt,
        positions,
        clean=clean_probability(lm, prompt),
        corrupted=float(means[0]),
        restored=dict(zip(restored, by_kind, strict=True)),
        entering=dict(zip(severed, by_severed, strict=True)),
    )


def _modules(lm: LanguageModel) -> dict[Part, tuple[str, ...]]:
    """Return the names of all layers' output matrices, by part.

    Biases and the norms behind them included, they decide what the part adds to the
    residual stream, position by position.
    """
    layers = range(lm.num_layers)
    modules: dict[Part, tuple[str, ...]] = {
        "mlp": tuple(lm.down_projection_name(layer) for layer in layers)
    }
    if lm.architecture.attention_projection is not None:
        modules["attention"] = tuple(
            lm.attention_projection_name(layer) for layer in layers
        )
    return modules
