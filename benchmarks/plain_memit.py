"""MEMIT as the published code works: one edit at a time, nothing left out.

The yardstick of ``benchmarks.targets`` and the oracle of ``tests/editors``. It shares
no code with ``flwr_collabedit.editors``: all rows of an edit, right-padded, through all
blocks and all positions at every step; ``torch.optim.Adam``; an explicit inverse.

Meng et al. "Mass-Editing Memory in a Transformer", ICLR 2023, section 4 and Algorithm
1, with the details of the published code.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.models.language_model import LanguageModel

FINAL_NORMS = {
    "gpt2": "transformer.ln_f",
    "gptj": "transformer.ln_f",
    "llama": "model.norm",
}


@dataclass(frozen=True)
class PlainTarget:
    """One target: ``z`` and ``initial`` of shape ``(d_model,)``."""

    z: Tensor
    initial: Tensor
    num_steps: int
    loss: float


def plain_target(
    lm: LanguageModel,
    request: EditRequest,
    config: MemitConfig,
    contexts: ContextTemplates,
    place: str = "",
) -> PlainTarget:
    """Return the target of one request, for the last edited block or a module of it."""
    prompts = [context.replace("{}", request.prompt) for context in contexts.templates]
    encoded = [encode(lm, prompt, request, request.target_new) for prompt in prompts]
    encoded.append(encode(lm, "{} is a", request, None))
    rows = [ids for ids, _, _ in encoded]
    places = [place for _, place, _ in encoded]
    targets = [target for _, _, target in encoded[:-1]]
    batch = pad(lm, rows)
    labels = torch.full_like(batch["input_ids"][:-1], -100)
    for index, (row, target) in enumerate(zip(rows, targets, strict=False)):
        labels[index, len(row) - len(target) : len(row)] = torch.tensor(target)

    block = place or lm.block_name(config.layers[-1])
    last = lm.block_name(lm.num_layers - 1)
    zeros = torch.zeros(lm.hidden_size, dtype=lm.dtype, device=lm.device)
    delta = zeros.requires_grad_()
    seen: dict[str, Tensor] = {}

    def add_delta(hidden: Tensor) -> Tensor:
        if "initial" not in seen:
            seen["initial"] = hidden[0, places[0]].detach().clone()
        added = torch.zeros_like(hidden)
        added[torch.arange(len(places)), places] = delta.expand(len(places), -1)
        return hidden + added

    def record(hidden: Tensor) -> None:
        seen["final"] = hidden

    optimizer = torch.optim.Adam([delta], lr=config.learning_rate)
    num_steps, loss = 0, torch.tensor(0.0)
    with torch.enable_grad(), hooked(lm, block, add_delta), hooked(lm, last, record):
        for step in range(config.num_gradient_steps):
            optimizer.zero_grad()
            logits = lm.model(**batch, use_cache=False).logits
            current = logits[-1, places[-1]].log_softmax(dim=0)
            first = seen.setdefault("first", current.detach())
            norm = lm.model.get_submodule(FINAL_NORMS[lm.architecture.family])
            head = lm.model.get_output_embeddings()  # type: ignore[no-untyped-call]
            log_probs = head(norm(seen["final"][:-1])).log_softmax(dim=2)
            is_target = labels != -100
            picked = log_probs.gather(2, labels.clamp(min=0)[..., None])[..., 0]
            each = -(picked * is_target).sum(1) / is_target.sum(1)
            divergence = (first.exp() * (first - current)).sum()
            decay = torch.norm(delta) / torch.norm(seen["initial"]) ** 2
            loss = (
                each.mean()
                + config.kl_factor * divergence
                + config.weight_decay * decay
            )
            if loss < config.stop_loss or step == config.num_gradient_steps - 1:
                break
            loss.backward()
            optimizer.step()
            num_steps += 1
            limit = config.clamp_norm_factor * seen["initial"].norm()
            if delta.norm() > limit:
                with torch.no_grad():
                    delta.mul_(limit / delta.norm())
    z = seen["initial"] + delta.detach()
    return PlainTarget(z, seen["initial"], num_steps, loss.item())


@torch.no_grad()
def plain_memit(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    config: MemitConfig,
    contexts: ContextTemplates,
    second_moments: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Return canonical MEMIT's update of each weight, ``(d_value, d_key)``."""
    z = [plain_target(lm, request, config, contexts).z for request in requests]
    weights = {
        layer: lm.model.get_parameter(lm.weight_name(layer)) for layer in config.layers
    }
    before = {layer: weight.clone() for layer, weight in weights.items()}
    updates = {}
    for index, layer in enumerate(config.layers):
        keys = torch.stack(
            [plain_key(lm, request, layer, contexts) for request in requests], dim=1
        ).double()
        now = [_plain_value(lm, request, config.layers[-1]) for request in requests]
        share = len(config.layers) - index
        residuals = (torch.stack(z, 1) - torch.stack(now, 1)).double() / share
        prior = config.second_moment_weight * second_moments[lm.weight_name(layer)]
        update = residuals @ keys.T @ torch.linalg.inv(prior + keys @ keys.T)
        updates[lm.weight_name(layer)] = update
        is_transposed = isinstance(lm.down_projection(layer), Conv1D)
        weights[layer].add_((update.T if is_transposed else update).to(lm.dtype))
    for layer, weight in weights.items():
        weight.copy_(before[layer])
    return updates


def plain_key(
    lm: LanguageModel, request: EditRequest, layer: int, contexts: ContextTemplates
) -> Tensor:
    """Mean over the groups of the mean over each group's contexts."""
    groups = []
    for group in contexts.groups:
        keys = []
        for context in group:
            prompt = context.replace("{}", request.prompt)
            ids, place, _ = encode(lm, prompt, request, None)
            seen: list[Tensor] = []
            handle = lm.down_projection(layer).register_forward_pre_hook(
                lambda _module, args, seen=seen: seen.append(args[0])
            )
            lm.model(torch.tensor([ids], device=lm.device), use_cache=False)
            handle.remove()
            keys.append(seen[0][0, place])
        groups.append(torch.stack(keys).mean(0))
    return torch.stack(groups).mean(0)


def _plain_value(lm: LanguageModel, request: EditRequest, layer: int) -> Tensor:
    ids, place, _ = encode(lm, request.prompt, request, None)
    seen: list[Tensor] = []
    with hooked(lm, lm.block_name(layer), seen.append):
        lm.model(torch.tensor([ids], device=lm.device), use_cache=False)
    return seen[0][0, place]


def encode(
    lm: LanguageModel, prompt: str, request: EditRequest, target: str | None
) -> tuple[list[int], int, list[int]]:
    """Return the ids without the last target token, the place of delta, the target."""
    start = prompt.index("{}")
    text = prompt.replace("{}", request.subject)
    whole = text if target is None else f"{text} {target}"
    encoding = lm.tokenizer(whole, return_offsets_mapping=True)
    ids, spans = encoding["input_ids"], encoding["offset_mapping"]
    end = start + len(request.subject)
    place = max(i for i, (a, b) in enumerate(spans) if a < end and b > start and b > a)
    if target is None:
        return ids, place, []
    size = sum(b > len(text) for _, b in spans)
    return ids[:-1], place, ids[-size:]


def pad(lm: LanguageModel, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), lm.pad_token_id)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    return {
        "input_ids": ids.to(lm.device),
        "attention_mask": mask.to(lm.device),
    }


@contextmanager
def hooked(
    lm: LanguageModel, name: str, function: Callable[[Tensor], Tensor | None]
) -> Iterator[None]:
    """Pass a block's hidden states through ``function``."""

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            changed = function(output[0])
            return output if changed is None else (changed, *output[1:])
        return function(output)

    handle = lm.model.get_submodule(name).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
