"""How far a model's next token is from the base model's."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flwr_collabedit.errors import NonFiniteOutputError, RequestFormatError
from flwr_collabedit.evaluation.batches import batches_by_length
from flwr_collabedit.evaluation.forward import final_hidden
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.padding import pad_batch
from flwr_collabedit.models.tokens import tokenize


@torch.no_grad()
def next_token_distributions(
    lm: LanguageModel, prompts: Sequence[str], *, batch_size: int = 64
) -> Tensor:
    """Return the log-probabilities of every token of the vocabulary after each prompt.

    Returns
    -------
    Tensor
        Shape ``(prompt, vocab)``, on the CPU, in float32 (float64 of a float64 model).

    Raises
    ------
    NonFiniteOutputError
        If the model's logits are not finite.
    RequestFormatError
        If a prompt is longer than the model's context.
    """
    rows = [tokenize(lm.tokenizer, prompt).input_ids for prompt in prompts]
    for prompt, row in zip(prompts, rows, strict=True):
        if not 1 <= len(row) <= lm.max_length:
            raise RequestFormatError(
                f"The prompt {prompt[:60]!r} has {len(row)} tokens; {lm.name!r} reads "
                f"1 to {lm.max_length}. Use another."
            )
    dtype = torch.promote_types(lm.dtype, torch.float32)
    one = torch.zeros(lm.hidden_size, dtype=lm.dtype, device=lm.device)
    found = torch.empty((len(rows), len(lm.logits(one))), dtype=dtype)
    for batch in batches_by_length([len(row) for row in rows], batch_size):
        padded = pad_batch([rows[index] for index in batch], lm.pad_token_id)
        last = torch.tensor([len(rows[index]) - 1 for index in batch])
        hidden = final_hidden(lm, padded)[torch.arange(len(batch)), last]
        logits = lm.logits(hidden).to(dtype)
        if not logits.isfinite().all():
            raise NonFiniteOutputError(
                f"Expected finite logits of {lm.name!r} after neutral prompts, found "
                "NaN or infinity. An edit has destroyed the model, or its dtype "
                "overflows: take the edit back or use a wider dtype."
            )
        found[batch] = logits.log_softmax(dim=-1).cpu()
    return found


def kl_to_base(base: Tensor, now: Tensor) -> Tensor:
    """Return ``KL(base || now)`` of each prompt's next token, in nats, >= 0.

    ``sum_v p(v) (ln p(v) - ln q(v))`` with ``p`` the base model's distribution and
    ``q`` the edited one's: what the base model holds likely counts most.

    Parameters
    ----------
    base, now : Tensor
        Log-probabilities of shape ``(prompt, vocab)``, of the same prompts. They are
        normalised again in float64, since their own rounding is as large as the
        divergence of a good edit.

    Returns
    -------
    Tensor
        Shape ``(prompt,)``, float64; 0 where the two are equal.
    """
    log_p, log_q = base.double().log_softmax(-1), now.double().log_softmax(-1)
    divergence: Tensor = (log_p.exp() * (log_p - log_q)).sum(-1)
    return divergence.clamp(min=0)
