"""One step of a hypernetwork's training: the loss of a batch of edits, its gradient.

Tan, Zhang and Fu, "Massive Editing for Large Language Models via Meta Learning", ICLR
2024, Figure 2. The gradient is found in two stages, so that never more than the
graph of the model or that of one weight's solve is held.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.closed_forms import FORMS
from flwr_collabedit.editors.hypernetwork import Hypernetwork
from flwr_collabedit.editors.label_gradients import LabelRow, Pair, label_logits
from flwr_collabedit.models.hooks import replace_output, trace
from flwr_collabedit.models.language_model import LanguageModel


@dataclass(frozen=True)
class MetaBatch:
    """Edits that are made together, and what the edited model is asked.

    Attributes
    ----------
    requests : tuple of EditRequest
        The edits.
    wanted : tuple of LabelRow
        New answers to edits' prompts and to other wordings of them.
    kept : tuple of LabelRow
        What is to be answered as before.
    """

    requests: tuple[EditRequest, ...]
    wanted: tuple[LabelRow, ...]
    kept: tuple[LabelRow, ...]


@dataclass(frozen=True)
class MetaLoss:
    """The loss of a batch, in nats a token.

    Attributes
    ----------
    wanted : float
        Cross entropy of the new answers.
    kept : float
        ``KL(base || edited)`` where the old ones are predicted.
    """

    wanted: float
    kept: float


def meta_backward(
    lm: LanguageModel,
    hypernetwork: Hypernetwork,
    pairs: Mapping[str, Pair],
    batch: MetaBatch,
    *,
    locality_weight: float = 1.0,
    rows_per_batch: int = 256,
) -> MetaLoss:
    """Add the gradient of a batch's loss to the hypernetwork's parameters.

    The first stage finds the gradient in the weight updates, with the hypernetwork's
    output as a constant; the second goes on from there, weight by weight.

    Parameters
    ----------
    lm : LanguageModel
        The base model; it is left bit-identical.
    hypernetwork : Hypernetwork
        Its input statistics stay as they are.
    pairs : mapping of str to (Tensor, Tensor)
        Keys ``(d_key, token)`` and gradients ``(d_value, token)`` of the batch's edits
        on the base model, by weight.
    batch : MetaBatch
        At least one wanted row and one kept.
    locality_weight : float
        Of the divergence in the loss.
    rows_per_batch : int
        Rows that the edited model reads at once.
    """
    form = FORMS[hypernetwork.config.form]
    with torch.no_grad():
        updates = {name: form(hypernetwork, name, *pairs[name]) for name in pairs}
    loss, gradients = _model_stage(lm, updates, batch, locality_weight, rows_per_batch)
    for name, gradient in gradients.items():
        update = form(hypernetwork, name, *pairs[name])
        (update * gradient.to(update)).sum().backward()  # type: ignore[no-untyped-call]
    return loss


@contextmanager
def with_updates(lm: LanguageModel, updates: Mapping[str, Tensor]) -> Iterator[None]:
    """Let weights act as if the updates were added, in a way that autograd sees.

    Parameters
    ----------
    lm : LanguageModel
        Its weights stay as they are.
    updates : mapping of str to Tensor
        ``(d_value, d_key)`` by weight name.
    """
    modules = {name: name.removesuffix(".weight") for name in updates}
    with ExitStack() as hooks:
        keys = hooks.enter_context(trace(lm.model, list(modules.values()), inputs=True))
        for name, module in modules.items():
            # Defaults bind what the loop's names stand for now.
            def add(
                hidden: Tensor, module: str = module, update: Tensor = updates[name]
            ) -> Tensor:
                return hidden + keys[module] @ update.to(keys[module]).T

            hooks.enter_context(replace_output(lm.model, module, add))
        yield


def _model_stage(
    lm: LanguageModel,
    updates: Mapping[str, Tensor],
    batch: MetaBatch,
    locality_weight: float,
    rows_per_batch: int,
) -> tuple[MetaLoss, dict[str, Tensor]]:
    """Return the loss and its gradient in each update."""
    leaves = {name: update.requires_grad_() for name, update in updates.items()}
    wanted = kept = 0.0
    num_wanted = sum(len(row.target_ids) for row in batch.wanted)
    num_kept = sum(len(row.target_ids) for row in batch.kept)
    with torch.enable_grad():
        for rows in _chunks(batch.wanted, rows_per_batch):
            with with_updates(lm, leaves):
                logits, targets = label_logits(lm, rows)
            loss = cross_entropy(logits, targets, reduction="sum") / num_wanted
            loss.backward()  # type: ignore[no-untyped-call]
            wanted += loss.item()
        for rows in _chunks(batch.kept, rows_per_batch):
            with torch.no_grad():
                base, _ = label_logits(lm, rows)
            with with_updates(lm, leaves):
                logits, _ = label_logits(lm, rows)
            divergence = kl_div(
                logits.log_softmax(-1),
                base.log_softmax(-1),
                reduction="sum",
                log_target=True,
            )
            loss = divergence / num_kept
            (locality_weight * loss).backward()  # type: ignore[no-untyped-call]
            kept += loss.item()
    gradients = {
        name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None
    }
    return MetaLoss(wanted, kept), gradients


def _chunks(rows: Sequence[LabelRow], size: int) -> Iterator[Sequence[LabelRow]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
