"""Keys and output gradients of edited weights, where an edit's answer is predicted.

The gradient of a loss in a weight is ``sum_j g_j k_j^T`` over the tokens of a text,
with ``k_j`` the input of its module and ``g_j`` the gradient in the module's output.
Hypernetworks read these factors (Mitchell et al., "Fast Model Editing at Scale", ICLR
2022, all tokens; Tan, Zhang and Fu, "Massive Editing for Large Language Models via Meta
Learning", ICLR 2024, the tokens that predict the answer).
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.errors import NonFiniteOutputError, RequestFormatError
from flwr_collabedit.models.hooks import replace_output, trace
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.padding import pad_batch
from flwr_collabedit.models.tokens import TokenizedText, tokenize

Reduction = Literal["sum", "mean"]
Tokens = Literal["answer", "subject", "all"]
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class LabelRow:
    """A text up to the last token but one, and what is to be predicted at its end.

    With ``at_once`` the text is the prompt alone, whose last position is to predict all
    tokens of the target. ``subject_last`` is the position of the subject's last token,
    where a subject was named.
    """

    input_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    at_once: bool = False
    subject_last: int | None = None

    @property
    def reads(self) -> Sequence[int]:
        """Positions at which the target's tokens are predicted."""
        end = len(self.input_ids)
        if self.at_once:
            return [end - 1] * len(self.target_ids)
        return range(end - len(self.target_ids), end)

    @classmethod
    def of(cls, text: TokenizedText, *, at_once: bool = False) -> "LabelRow":
        """Return the row of a prompt with its target."""
        end = text.target_start if at_once else -1
        return cls(
            text.input_ids[:end], tuple(text.target_ids), at_once, text.subject_last
        )


def label_gradients(
    lm: LanguageModel,
    names: Sequence[str],
    requests: Sequence[EditRequest],
    *,
    tokens: Tokens = "answer",
    reduction: Reduction = "sum",
    rows_per_batch: int = 32,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Pair]:
    """Return each weight's keys and output gradients of the edits' loss.

    The loss of an edit is the cross entropy of its target after its bare prompt, each
    token given those before it.

    Parameters
    ----------
    lm : LanguageModel
        The model as it is to be measured. It is left bit-identical, and no parameter of
        it gets a gradient.
    names : sequence of str
        Weights, such as ``transformer.h.3.mlp.c_proj.weight``.
    requests : sequence of EditRequest
        May be empty.
    tokens : {"answer", "subject", "all"}
        Whether the columns are the tokens that predict the target, the subject's last
        token, or all of a text.
    reduction : {"sum", "mean"}
        Over the target's tokens. ``sum`` makes every edit's columns its own. ``mean``,
        over the target tokens of each batch of ``rows_per_batch`` requests, is what
        MALMEN's code does: gradients shrink as the batch grows, so that an edit's
        columns depend on the edits beside it.
    rows_per_batch : int
        Texts run at once, in the order of ``requests``; with ``sum`` it changes the
        result by rounding only.
    progress : callable or None
        Called with the number of requests done.

    Returns
    -------
    dict of str to (Tensor, Tensor)
        Keys ``(d_key, token)`` and gradients ``(d_value, token)`` by name, float64, on
        the device of the model; tokens in the order of the requests and their texts.

    Raises
    ------
    RequestFormatError
        If a text is longer than the model's context.
    NonFiniteOutputError
        If a loss is not finite.
    """
    rows = [label_row(lm, request) for request in requests]
    parts: dict[str, list[Pair]] = {name: [] for name in names}
    # Without requests one token still runs, which tells the widths.
    for start in range(0, max(1, len(rows)), rows_per_batch):
        batch = rows[start : start + rows_per_batch] or [
            LabelRow((lm.pad_token_id,), ())
        ]
        scale = 1.0
        if reduction == "mean":
            scale /= max(1, sum(len(row.target_ids) for row in batch))
        for name, (keys, gradients) in _of_batch(lm, names, batch, tokens).items():
            parts[name].append((keys, scale * gradients))
        if progress is not None:
            progress(min(start + rows_per_batch, len(rows)))
    return {
        name: (torch.cat([k for k, _ in found], 1), torch.cat([g for _, g in found], 1))
        for name, found in parts.items()
    }


def count_columns(
    lm: LanguageModel, requests: Sequence[EditRequest], tokens: Tokens
) -> list[int]:
    """Return how many columns of `label_gradients` each request has."""
    rows = [label_row(lm, request) for request in requests]
    return [len(_kept(row, tokens)) for row in rows]


def label_logits(lm: LanguageModel, rows: Sequence[LabelRow]) -> tuple[Tensor, Tensor]:
    """Return the logits where the targets' tokens are predicted, and these tokens.

    Returns
    -------
    logits : Tensor
        ``(target token, vocab)``, float32 or wider, with their graph if gradients are
        on.
    targets : Tensor
        ``(target token,)``, int64.
    """
    batch = pad_batch([row.input_ids for row in rows], lm.pad_token_id).to(lm.device)
    hidden = lm.decoder(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state.to(lm.device)
    logits = lm.logits(hidden[_index((row.reads for row in rows), lm.device)])
    targets = torch.tensor([one for row in rows for one in row.target_ids])
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return wide, targets.long().to(lm.device)


def label_row(
    lm: LanguageModel, request: EditRequest, *, at_once: bool = False
) -> LabelRow:
    """Return a request's bare prompt with its target.

    Raises
    ------
    RequestFormatError
        If the text is longer than the model's context.
    """
    text = tokenize(
        lm.tokenizer,
        request.prompt,
        subject=request.subject,
        target=request.target_new,
    )
    if len(text.input_ids) > lm.max_length:
        raise RequestFormatError(
            f"Case {request.case_id!r}: the prompt with its target has "
            f"{len(text.input_ids)} tokens; {lm.name!r} reads at most {lm.max_length}. "
            "Shorten the prompt or leave the case out."
        )
    return LabelRow.of(text, at_once=at_once)


def _of_batch(
    lm: LanguageModel, names: Sequence[str], rows: Sequence[LabelRow], tokens: Tokens
) -> dict[str, Pair]:
    modules = {name: name.removesuffix(".weight") for name in names}
    outputs: dict[str, Tensor] = {}

    def watch(name: str, hidden: Tensor) -> Tensor:
        # Below the first edited module nothing requires a gradient, so that no graph
        # is built; its output begins one, and those above are inside it.
        watched = hidden if hidden.requires_grad else hidden.detach().requires_grad_()
        outputs[name] = watched
        return watched

    with ExitStack() as hooks, torch.enable_grad():
        keys = hooks.enter_context(trace(lm.model, list(modules.values()), inputs=True))
        for name, module in modules.items():
            hooks.enter_context(replace_output(lm.model, module, partial(watch, name)))
        logits, targets = label_logits(lm, rows)
        loss = cross_entropy(logits, targets, reduction="sum")
    if not loss.isfinite():
        raise NonFiniteOutputError(
            f"Expected a finite loss of the requests' targets, found {loss.item()}. "
            f"The weights of {lm.name!r} or its precision are unusable; load it again, "
            "or in float32."
        )
    gradients = torch.autograd.grad(loss, list(outputs.values()))
    kept = [_kept(row, tokens) for row in rows]
    if not len(targets):  # no request
        kept = [range(0)]
    return {
        name: (
            _columns(keys[modules[name]].detach(), kept, lm.device),
            _columns(gradient, kept, lm.device),
        )
        for name, gradient in zip(outputs, gradients, strict=True)
    }


def _kept(row: LabelRow, tokens: Tokens) -> Sequence[int]:
    if tokens == "answer":
        return row.reads
    if tokens == "subject":
        return [] if row.subject_last is None else [row.subject_last]
    return range(len(row.input_ids))


def _columns(
    states: Tensor, kept: Sequence[Sequence[int]], device: torch.device
) -> Tensor:
    picked = states[_index(kept, states.device)]
    return picked.to(device, torch.float64).T.contiguous()


def _index(
    kept: Iterable[Sequence[int]], device: torch.device
) -> tuple[Tensor, Tensor]:
    pairs = [(row, position) for row, span in enumerate(kept) for position in span]
    rows, positions = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    return rows.to(device), positions.to(device)
