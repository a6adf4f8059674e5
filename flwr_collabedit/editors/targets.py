"""Targets: the hidden states that make a model say new facts, for many edits at once.

Meng et al. "Mass-Editing Memory in a Transformer", ICLR 2023, section 4.2. The
published code optimises one edit after another; edits do not influence each other, so
here they are the rows of one tensor.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.editor import Progress
from flwr_collabedit.editors.methods import method_of, target_modules
from flwr_collabedit.editors.rows import TargetRow, target_rows
from flwr_collabedit.editors.target_loss import TargetLoss
from flwr_collabedit.errors import (
    ConfigurationError,
    NonFiniteOutputError,
    shorten,
)
from flwr_collabedit.models.language_model import LanguageModel

# Adam's constants (Kingma and Ba, 2015), those of the published code.
_BETAS, _EPSILON = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class Targets:
    """What a part of the model should output at each subject's last token.

    That is the last edited block (MEMIT) or its MLP (PMET, ROME).

    All on the device of the model, float32 (float64 for a float64 model).

    Attributes
    ----------
    z : Tensor
        The targets, shape ``(edit, d_model)``.
    initial : Tensor
        That output before the edit, shape ``(edit, d_model)``.
    num_steps : Tensor
        Updates made, shape ``(edit,)``, int64.
    loss : Tensor
        Loss at the last evaluation, shape ``(edit,)``.
    """

    z: Tensor
    initial: Tensor
    num_steps: Tensor
    loss: Tensor


def optimize_targets(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    config: MemitConfig,
    contexts: ContextTemplates,
    *,
    progress: Progress | None = None,
) -> Targets:
    """Return the target of every request.

    A target does not depend, up to rounding, on which requests are optimised with it.

    Parameters
    ----------
    lm : LanguageModel
        The model as it is to be edited; it is not changed.
    requests : sequence of EditRequest
        May be empty.
    config : MemitConfig
        ``config.edits_per_batch`` requests are optimised as one tensor.
    contexts : ContextTemplates
        Contexts in which the fact shall hold, equally weighted.
    progress : callable or None
        Called with the number of requests that are finished, whenever it grows.

    Raises
    ------
    ConfigurationError
        If an edited layer does not exist, the loss layer is not the last block, or the
        editor cannot edit the model's family.
    NonFiniteOutputError
        If the loss of a request is not finite at the start.
    """
    check_model(lm, config)
    rows = [
        target_rows(lm, index % config.edits_per_batch, request, contexts)
        for index, request in enumerate(requests)
    ]
    parts = []
    for start in range(0, len(rows), config.edits_per_batch):
        batch = slice(start, start + config.edits_per_batch)
        finished = _shifted(progress, start)
        case_ids = [request.case_id for request in requests[batch]]
        parts.append(_optimize(lm, rows[batch], case_ids, config, finished))
    return _joined(lm, parts)


def check_model(lm: LanguageModel, config: MemitConfig) -> None:
    """Raise :class:`ConfigurationError` unless ``config`` fits the model."""
    lm.check_layers(config.layers)
    target_modules(lm, config)
    last = lm.num_layers - 1
    if config.loss_layer not in (None, last):
        raise ConfigurationError(
            f"Expected loss_layer {last}, the last block of {lm.name!r}, or None; "
            f"found {config.loss_layer}. The loss of an earlier block is not supported."
        )
    if config.layers[-1] == last:
        raise ConfigurationError(
            f"Expected layers below {last}, the last block of {lm.name!r}, found "
            f"{config.layers}. Attention above the last edited layer has to carry the "
            "target from the subject to the answer."
        )


def _optimize(
    lm: LanguageModel,
    rows: Sequence[Sequence[TargetRow]],
    case_ids: Sequence[int | str],
    config: MemitConfig,
    progress: Progress,
) -> Targets:
    places = target_modules(lm, config)
    objective = method_of(config).loss(lm, rows, config, places)
    limit = config.clamp_norm_factor * objective.initial.norm(dim=2, keepdim=True)
    delta = torch.zeros_like(objective.initial)  # (edit, place, d_model)
    adam = _Adam(delta, config.learning_rate)
    loss = torch.zeros_like(delta[:, 0, 0])
    num_steps = torch.zeros_like(loss, dtype=torch.long)
    is_active = torch.ones_like(loss, dtype=torch.bool)
    for step in range(config.num_gradient_steps):
        is_last = step == config.num_gradient_steps - 1
        current, gradient = _evaluate(objective, delta, with_gradient=not is_last)
        loss = torch.where(is_active, current, loss)
        _check_finite(loss, case_ids)
        is_active = is_active & ~objective.is_finished(loss)
        progress(len(rows) if is_last else len(rows) - int(is_active.sum()))
        if is_last or not is_active.any():
            break
        objective.keep(is_active)
        updated = _project(delta + adam.step(gradient), limit)
        delta = torch.where(is_active[:, None, None], updated, delta)
        num_steps += is_active
    initial = objective.initial[:, -1]
    return Targets(initial + delta[:, -1], initial, num_steps, loss)


def _evaluate(
    objective: TargetLoss, delta: Tensor, *, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Return each edit's loss and, if wanted, its gradient (else zeros)."""
    with torch.set_grad_enabled(with_gradient):
        delta = delta.detach().requires_grad_(with_gradient)
        loss = objective(delta)
    if not with_gradient:
        return loss, torch.zeros_like(delta)
    [gradient] = torch.autograd.grad(loss.sum(), delta)
    return loss.detach(), gradient


class _Adam:
    """Adam's step for rows that all began at the same time."""

    def __init__(self, like: Tensor, learning_rate: float) -> None:
        self._learning_rate = learning_rate
        self._mean, self._square = torch.zeros_like(like), torch.zeros_like(like)
        self._count = 0

    def step(self, gradient: Tensor) -> Tensor:
        """Return what to add to the parameter."""
        (first, second), self._count = _BETAS, self._count + 1
        self._mean.lerp_(gradient, 1 - first)
        self._square.lerp_(gradient.square(), 1 - second)
        mean = self._mean / (1 - first**self._count)
        scale = (self._square / (1 - second**self._count)).sqrt() + _EPSILON
        return -self._learning_rate * mean / scale


def _project(delta: Tensor, limit: Tensor) -> Tensor:
    """Scale vectors longer than ``limit``, ``(edit, place, 1)``, down to it."""
    norm = delta.norm(dim=2, keepdim=True)
    return torch.where(norm > limit, delta * (limit / norm), delta)


def _check_finite(loss: Tensor, case_ids: Sequence[int | str]) -> None:
    if not bool(loss.isfinite().all()):
        wrong = [case_ids[index] for index in (~loss.isfinite()).nonzero()[:, 0]]
        raise NonFiniteOutputError(
            "Expected a finite loss for every request, found NaN or infinity for case "
            f"{shorten(wrong)}. The model's weights or its precision are unusable; "
            "load it again, or in float32."
        )


def _shifted(progress: Progress | None, start: int) -> Progress:
    return lambda count: progress(start + count) if progress else None


def _joined(lm: LanguageModel, parts: Sequence[Targets]) -> Targets:
    if not parts:
        dtype = torch.promote_types(lm.dtype, torch.float32)
        none = torch.zeros(0, lm.hidden_size, dtype=dtype, device=lm.device)
        return Targets(none, none, none.new_zeros(0, dtype=torch.long), none[:, 0])
    return Targets(
        torch.cat([part.z for part in parts]),
        torch.cat([part.initial for part in parts]),
        torch.cat([part.num_steps for part in parts]),
        torch.cat([part.loss for part in parts]),
    )
