"""ROME as the published code works: one edit after another, each written at once.

The oracle of ``test_rome.py``; it shares no code with ``flwr_collabedit.editors``.
Meng et al. "Locating and Editing Factual Associations in GPT", NeurIPS 2022.
"""

from collections.abc import Sequence

import torch
from plain_pmet import MLP_OUTPUTS
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from benchmarks.plain_memit import encode, hooked, plain_key, plain_target
from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.rome_config import RomeConfig
from flwr_collabedit.models.language_model import LanguageModel


@torch.no_grad()
def plain_rome(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    config: RomeConfig,
    contexts: ContextTemplates,
    second_moment: Tensor,
) -> Tensor:
    """Return what ROME's edits add to the weight together, ``(d_value, d_key)``."""
    [layer] = config.layers
    name = MLP_OUTPUTS[lm.architecture.family].format(layer)
    weight = lm.model.get_parameter(lm.weight_name(layer))
    is_transposed = isinstance(lm.down_projection(layer), Conv1D)
    before = weight.clone()
    for request in requests:
        target = plain_target(lm, request, config, contexts, name).z
        mean_key = _mean(
            [plain_key(lm, request, layer, one) for one in alone(contexts)]
        )
        bare, *_ = alone(contexts)
        direction = mean_key
        if config.adjust_keys:
            direction = torch.linalg.inv(second_moment) @ mean_key
        direction = direction / direction.norm()
        key = plain_key(lm, request, layer, bare)
        value = mlp_output(lm, request, name, "{}")
        if config.consistent_keys:
            key = mean_key
            value = _mean(
                [mlp_output(lm, request, name, one) for one in contexts.templates]
            )
        update = torch.outer((target - value) / (key @ direction), direction)
        weight.add_(update.T if is_transposed else update)
    change = weight - before
    weight.copy_(before)
    return change.T if is_transposed else change


def alone(contexts: ContextTemplates) -> list[ContextTemplates]:
    """Return each context as the only one; the class wants the bare prompt first."""
    each = []
    for template in contexts.templates:
        one = ContextTemplates()
        object.__setattr__(one, "groups", ((template,),))
        each.append(one)
    return each


def mlp_output(
    lm: LanguageModel, request: EditRequest, name: str, context: str
) -> Tensor:
    """Return the MLP's output at the subject's last token in one context."""
    prompt = context.replace("{}", request.prompt)
    ids, place, _ = encode(lm, prompt, request, None)
    seen: list[Tensor] = []
    with hooked(lm, name, seen.append), torch.no_grad():
        lm.model(torch.tensor([ids]), use_cache=False)
    return seen[0][0, place]


def _mean(vectors: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(vectors)).mean(0)
