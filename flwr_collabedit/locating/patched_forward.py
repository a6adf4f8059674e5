"""Forwards with noise on the subject and some states put back: causal interventions.

Meng et al. "Locating and Editing Factual Associations in GPT", NeurIPS 2022, section 2
(corrupted run, corrupted run with restoration) and figure 3 (severed modules).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from flwr_collabedit.evaluation.forward import final_hidden
from flwr_collabedit.locating.traced_prompt import TracedPrompt
from flwr_collabedit.models.hooks import replace_output, trace
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.padding import pad_batch


@dataclass(frozen=True)
class Intervention:
    """What is put back at one position of a corrupted run.

    Attributes
    ----------
    position : int
        Where.
    restored : tuple of str
        Modules whose output there is that of the clean run.
    frozen : tuple of str
        Modules whose output there stays that of the corrupted run, whatever reaches
        them: severed. No name of ``restored``.
    spared : bool
        Leave the noise off this position's embedding.
    """

    position: int
    restored: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    spared: bool = False


@torch.no_grad()
def answer_probabilities(
    lm: LanguageModel,
    prompt: TracedPrompt,
    noise: Tensor,
    interventions: Sequence[Intervention],
    *,
    batch_size: int,
) -> Tensor:
    """Return the answer's probability under every intervention, for every noise.

    Parameters
    ----------
    lm : LanguageModel
        Not changed.
    prompt : TracedPrompt
        One prompt: all rows have its length, so that none is padded.
    noise : Tensor
        Added to the embeddings of the subject's tokens, shape ``(sample, subject token,
        d_embedding)``. The same for all interventions.
    interventions : sequence of Intervention
        At least one. One that puts nothing back is the corrupted run itself.
    batch_size : int
        Rows per forward, >= 1; a row is an intervention with one sample of noise.

    Returns
    -------
    Tensor
        Shape ``(intervention, sample)``, float32, on the CPU.
    """
    names = {name for item in interventions for name in item.restored + item.frozen}
    states = _states(lm, prompt, noise, sorted(names))
    rows = [
        (item, sample) for item in interventions for sample in range(noise.shape[0])
    ]
    parts = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        row_noise = torch.stack([noise[sample] for _, sample in batch])
        for row, (item, _) in enumerate(batch):
            if item.spared and item.position <= prompt.subject_last:
                row_noise[row, item.position - prompt.subject_first] = 0
        with ExitStack() as hooks:
            hooks.enter_context(_corrupted(lm, prompt, row_noise))
            for name, places in _places(batch).items():
                patch = partial(_put_back, states=states[name], places=places)
                hooks.enter_context(replace_output(lm.model, name, patch))
            parts.append(_probabilities(lm, prompt, len(batch)))
    return torch.cat(parts).view(len(interventions), noise.shape[0])


@torch.no_grad()
def clean_probability(lm: LanguageModel, prompt: TracedPrompt) -> float:
    """Return the answer's probability without noise."""
    return float(_probabilities(lm, prompt, 1))


def embedding_name(lm: LanguageModel) -> str:
    """Return the name of the module that gives tokens their embeddings."""
    embedding: object = lm.model.get_input_embeddings()
    names: dict[object, str] = {part: name for name, part in lm.model.named_modules()}
    return names[embedding]


def _states(
    lm: LanguageModel, prompt: TracedPrompt, noise: Tensor, names: Sequence[str]
) -> Mapping[str, Tensor]:
    """Return outputs ``(1 + sample, position, d)``, the clean run's first."""
    with_clean = torch.cat([torch.zeros_like(noise[:1]), noise])
    with _corrupted(lm, prompt, with_clean), trace(lm.model, names) as states:
        _forward(lm, prompt, len(with_clean))
    return states


@contextmanager
def _corrupted(
    lm: LanguageModel, prompt: TracedPrompt, noise: Tensor
) -> Iterator[None]:
    """Add each row's noise to the subject's embeddings while the context lasts."""
    subject = slice(prompt.subject_first, prompt.subject_last + 1)

    def add(embeddings: Tensor) -> Tensor:
        noisy = embeddings.clone()
        wide = embeddings[:, subject].float() + noise.to(embeddings.device)
        noisy[:, subject] = wide.to(embeddings.dtype)
        return noisy

    with replace_output(lm.model, embedding_name(lm), add):
        yield


def _places(
    batch: Sequence[tuple[Intervention, int]],
) -> dict[str, list[tuple[int, int, int]]]:
    """Return, by module, which row gets at which position the state of which run."""
    places = defaultdict(list)
    for row, (item, sample) in enumerate(batch):
        for name in item.restored:
            places[name].append((row, item.position, 0))
        for name in item.frozen:
            places[name].append((row, item.position, 1 + sample))
    return places


def _put_back(
    hidden: Tensor, *, states: Tensor, places: Sequence[tuple[int, int, int]]
) -> Tensor:
    rows, positions, runs = torch.tensor(places, device=hidden.device).T
    patched = hidden.clone()
    patched[rows, positions] = states[runs, positions]
    return patched


def _probabilities(lm: LanguageModel, prompt: TracedPrompt, num_rows: int) -> Tensor:
    logits = lm.logits(_forward(lm, prompt, num_rows)[:, -1])  # (row, vocab)
    return logits.float().softmax(dim=-1)[:, prompt.answer_id].cpu()


def _forward(lm: LanguageModel, prompt: TracedPrompt, num_rows: int) -> Tensor:
    return final_hidden(lm, pad_batch([prompt.input_ids] * num_rows, lm.pad_token_id))
