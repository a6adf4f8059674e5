"""PMET as the published code works: one edit at a time, hooks on the whole model.

The oracle of ``test_pmet.py``; it shares no code with ``flwr_collabedit.editors``.
Li et al. "PMET: Precise Model Editing in a Transformer", AAAI 2024.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from benchmarks.plain_memit import PlainTarget, encode, hooked, pad, plain_key
from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.pmet_config import PmetConfig
from flwr_collabedit.models.language_model import LanguageModel

ATTENTION_OUTPUTS = {
    "gpt2": "transformer.h.{}.attn.c_proj",
    "gptj": "transformer.h.{}.attn.out_proj",
    "llama": "model.layers.{}.self_attn.o_proj",
    "gpt_neox": "gpt_neox.layers.{}.attention.dense",
    "phi": "model.layers.{}.self_attn.dense",
}
MLP_OUTPUTS = {
    "gpt2": "transformer.h.{}.mlp.c_proj",
    "gptj": "transformer.h.{}.mlp.fc_out",
    "llama": "model.layers.{}.mlp.down_proj",
    "gpt_neox": "gpt_neox.layers.{}.mlp.dense_4h_to_h",
    "phi": "model.layers.{}.mlp.fc2",
}


def plain_pmet_target(
    lm: LanguageModel,
    request: EditRequest,
    config: PmetConfig,
    contexts: ContextTemplates,
) -> PlainTarget:
    """Return the target of one request: what the MLP is to write."""
    prompts = [context.replace("{}", request.prompt) for context in contexts.templates]
    encoded = [encode(lm, prompt, request, request.target_new) for prompt in prompts]
    encoded.append(encode(lm, "{} is a", request, None))
    rows = [ids for ids, _, _ in encoded]
    places = [place for _, place, _ in encoded]
    labels = torch.full((len(prompts), max(map(len, rows))), -100)
    for index, (ids, _, target) in enumerate(encoded[:-1]):
        labels[index, len(ids) - len(target) : len(ids)] = torch.tensor(target)

    family, layer = lm.architecture.family, config.layers[-1]
    names = [t[family].format(layer) for t in (ATTENTION_OUTPUTS, MLP_OUTPUTS)]
    deltas = [torch.zeros(lm.hidden_size, dtype=lm.dtype) for _ in names]
    initial: dict[str, Tensor] = {}

    def adding(name: str, delta: Tensor):
        def add(hidden: Tensor) -> Tensor:
            initial.setdefault(name, hidden[0, places[0]].detach().clone())
            added = torch.zeros_like(hidden)
            added[torch.arange(len(places)), places] = delta.expand(len(places), -1)
            return hidden + added

        return add

    attention, mlp = (delta.requires_grad_() for delta in deltas)
    optimizer = torch.optim.Adam([mlp, attention], lr=config.learning_rate)
    factor, first = config.nll_factor, None
    num_steps, loss = 0, torch.tensor(0.0)
    with (
        torch.enable_grad(),
        hooked(lm, names[0], adding(names[0], attention)),
        hooked(lm, names[1], adding(names[1], mlp)),
    ):
        for step in range(config.num_gradient_steps):
            optimizer.zero_grad()
            logits = lm.model(**pad(lm, rows), use_cache=False).logits
            current = logits[-1, places[-1]].log_softmax(dim=0)
            first = current.detach() if first is None else first
            log_probs = logits[:-1].log_softmax(dim=2)
            is_target = labels != -100
            picked = log_probs.gather(2, labels.clamp(min=0)[..., None])[..., 0]
            each = -(picked * is_target).sum(1) / is_target.sum(1)
            nll = factor * each.mean()
            divergence = config.kl_factor * (first.exp() * (first - current)).sum()
            decay = config.weight_decay * sum(
                delta.norm() / initial[name].norm() ** 2
                for name, delta in zip(names, (attention, mlp), strict=True)
            )
            loss = nll + divergence + decay
            if loss < config.stop_loss:
                break
            said = log_probs.argmax(dim=2)
            factor = config.nll_factor
            if bool((said == labels)[is_target].all()):
                factor = config.answered_nll_factor * config.nll_factor
                limit = config.stop_divergence
                if limit is not None and divergence <= limit:
                    break
            if step == config.num_gradient_steps - 1:
                break
            loss.backward()
            optimizer.step()
            num_steps += 1
            with torch.no_grad():
                for name, delta in zip(names, (attention, mlp), strict=True):
                    limit = config.clamp_norm_factor * initial[name].norm()
                    delta.mul_(min(1.0, limit / delta.norm()))
    z = initial[names[1]] + mlp.detach()
    return PlainTarget(z, initial[names[1]], num_steps, loss.item())


@torch.no_grad()
def plain_pmet(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    config: PmetConfig,
    contexts: ContextTemplates,
    second_moments: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Return PMET's update of each weight, ``(d_value, d_key)``."""
    z = [plain_pmet_target(lm, request, config, contexts).z for request in requests]
    weights = {
        layer: lm.model.get_parameter(lm.weight_name(layer)) for layer in config.layers
    }
    before = {layer: weight.clone() for layer, weight in weights.items()}
    updates = {}
    for index, layer in enumerate(config.layers):
        keys = torch.stack(
            [plain_key(lm, request, layer, contexts) for request in requests], dim=1
        )
        now = [_mlp_output(lm, request, config.layers[-1]) for request in requests]
        share = (len(config.layers) - index) ** -0.5
        residuals = share * (torch.stack(z, 1) - torch.stack(now, 1))
        prior = config.second_moment_weight * second_moments[lm.weight_name(layer)]
        update = residuals @ keys.T @ torch.linalg.inv(prior + keys @ keys.T)
        updates[lm.weight_name(layer)] = update
        is_transposed = isinstance(lm.down_projection(layer), Conv1D)
        weights[layer].add_(update.T if is_transposed else update)
    for layer, weight in weights.items():
        weight.copy_(before[layer])
    return updates


def _mlp_output(lm: LanguageModel, request: EditRequest, layer: int) -> Tensor:
    ids, place, _ = encode(lm, request.prompt, request, None)
    seen: list[Tensor] = []
    with hooked(lm, MLP_OUTPUTS[lm.architecture.family].format(layer), seen.append):
        lm.model(torch.tensor([ids]), use_cache=False)
    return seen[0][0, place]
