"""Free text after a prompt: top-k sampling, many prompts at a time.

Fan et al. "Hierarchical Neural Story Generation", ACL 2018; it is how ROME's and
    MEMIT's code writes the texts that fluency and consistency are measured on.

What is drawn for a text depends on the seed and on the text alone, not on the other
texts of the batch: clients that each write their own cases' texts write the same as
one party with all of them.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from flwr_collabedit.errors import ConfigurationError, NonFiniteOutputError
from flwr_collabedit.evaluation.batches import Progress, batches_by_length
from flwr_collabedit.evaluation.continuation import check_room, decode_after
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.padding import pad_batch
from flwr_collabedit.models.tokens import tokenize

TOP_K = 5


class Draw(NamedTuple):
    """One text to write.

    Attributes
    ----------
    prompt : str
        What it begins with.
    number : int
        Tells the texts of one prompt apart.
    """

    prompt: str
    number: int = 0


def sample_continuations(
    lm: LanguageModel,
    draws: Sequence[Draw],
    num_tokens: int,
    *,
    top_k: int = TOP_K,
    seed: int = 0,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> list[str]:
    """Return what the model writes after each prompt.

    Every token is drawn from the ``top_k`` likeliest, in proportion to their
    probabilities. All texts have the same number of tokens, so that they compare: the
    end of the text is a token like any other and the model goes on behind it, as in
    MEMIT's code. It is left out of the result.

    Parameters
    ----------
    lm : LanguageModel
        The model; it is not changed, and torch's random state is not used.
    draws : sequence of Draw
        Equal ones give equal texts.
    num_tokens : int
        New tokens of each text, >= 1.
    top_k : int
        At least 1, which is greedy; MEMIT's code has 5.
    seed : int
        Another one gives other texts.
    batch_size : int
        Texts written together, >= 1; prompts are sorted by length and padded on the
        left. The result depends on it by rounding only.
    progress : callable, optional
        Called after every batch with the number of texts done and of all.

    Returns
    -------
    list of str
        The continuations without their prompts, white space included.

    Raises
    ------
    RequestFormatError
        If a prompt and ``num_tokens`` do not fit the model's context.
    NonFiniteOutputError
        If the model's logits are not finite.
    ConfigurationError
        If a number is below 1.
    """
    if num_tokens < 1 or top_k < 1:
        raise ConfigurationError(
            "Expected texts of at least 1 token, drawn from at least 1 token; found "
            f"num_tokens={num_tokens}, top_k={top_k}."
        )
    rows = [tokenize(lm.tokenizer, draw.prompt).input_ids for draw in draws]
    for draw, row in zip(draws, rows, strict=True):
        check_room(lm, draw.prompt, len(row) + num_tokens)
    texts: dict[int, str] = {}
    for batch in batches_by_length([len(row) for row in rows], batch_size, progress):
        points = torch.stack([_points(draws[i], num_tokens, seed) for i in batch])
        written = _write(lm, [rows[index] for index in batch], points, top_k)
        for index, ids in zip(batch, written.tolist(), strict=True):
            texts[index] = decode_after(lm, rows[index], ids)
    return [texts[index] for index in range(len(rows))]


def _points(draw: Draw, num_tokens: int, seed: int) -> Tensor:
    """Return where in [0, 1) each token of a text is drawn, ``(token,)``, float64."""
    name = f"{seed} {draw.number} {draw.prompt}".encode()
    digest = hashlib.blake2b(name, digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
    return torch.rand(num_tokens, dtype=torch.float64, generator=generator)


@torch.no_grad()
def _write(
    lm: LanguageModel, rows: Sequence[Sequence[int]], points: Tensor, top_k: int
) -> Tensor:
    """Return the new tokens, ``(row, token)``."""
    batch = pad_batch(rows, lm.pad_token_id, side="left").to(lm.device)
    ids, mask = batch.input_ids, batch.attention_mask
    positions, past = batch.position_ids, None
    written = []
    for point in points.T:
        output = lm.decoder(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=past,
            use_cache=True,
        )
        logits = lm.logits(output.last_hidden_state[:, -1])  # (row, vocab)
        if not logits.isfinite().all():
            raise NonFiniteOutputError(
                f"Expected finite logits of {lm.name!r} while it writes, found NaN or "
                "infinity. An edit has destroyed the model, or its dtype overflows: "
                "take the edit back or use a wider dtype."
            )
        ids = pick(logits, point, top_k)[:, None].to(lm.device)
        written.append(ids)
        positions, past = positions[:, -1:] + 1, output.past_key_values
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
    return torch.cat(written, dim=1)


def pick(logits: Tensor, points: Tensor, top_k: int) -> Tensor:
    """Return a token for each row: where a point falls among the likeliest ones.

    The ``top_k`` likeliest tokens share [0, 1) in proportion to their probabilities,
    the likeliest first.

    Parameters
    ----------
    logits : Tensor
        ``(row, vocab)``.
    points : Tensor
        ``(row,)``, in [0, 1).
    top_k : int
        At least 1.

    Returns
    -------
    Tensor
        ``(row,)``, int64.

    Examples
    --------
    >>> logits = torch.tensor([[0.6, 0.1, 0.3]]).log().expand(2, 3)
    >>> pick(logits, torch.tensor([0.66, 0.67]), 2).tolist()  # 2/3 and 1/3
    [0, 2]
    """
    best = logits.topk(min(top_k, logits.shape[-1]), dim=-1)
    ends = best.values.double().softmax(dim=-1).cumsum(dim=-1)
    # Rounding may leave the last end below 1: what lies beyond is the last token's.
    place = (ends[:, :-1] <= points.to(ends)[:, None]).sum(dim=-1, keepdim=True)
    return best.indices.gather(-1, place)[:, 0]
