"""Perplexity of text, as sums that add over texts and clients.

Huang, Liu et al., "Reasons and Solutions for the Decline in Model Performance after
    Editing" (D4S), NeurIPS 2024, equation 1.
"""

import math
from collections.abc import Iterable, Sequence

import torch

from flwr_collabedit.errors import ConfigurationError, NonFiniteOutputError
from flwr_collabedit.evaluation.batches import batches_by_length
from flwr_collabedit.evaluation.forward import final_hidden
from flwr_collabedit.evaluation.metrics import MetricSums
from flwr_collabedit.evaluation.windows import Window, windows
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.padding import pad_batch
from flwr_collabedit.models.tokens import tokenize

TEXT_LOSS = "text-loss"


def text_loss(
    lm: LanguageModel,
    texts: Iterable[str],
    *,
    window: int | None = None,
    overlap: int | None = None,
    batch_size: int = 64,
) -> MetricSums:
    """Return the summed loss of all predicted tokens, and their number.

    A text of ``n`` tokens (with the special tokens that the tokenizer puts first) has
    ``n - 1`` predicted ones: each but the first, given those before it. A text longer
    than the window is read in windows that overlap; each token is still predicted
    once, in the first window that holds it, given at least ``overlap`` tokens.

    Parameters
    ----------
    lm : LanguageModel
        The model; it is not changed.
    texts : iterable of str
        Texts without a second token count nothing.
    window : int or None
        Tokens read at once, from 2 to the model's positions, which ``None`` stands for.
    overlap : int or None
        From 1 to ``window - 1``; ``None`` is half a window.
    batch_size : int
        Windows per forward pass, >= 1; sorted by length, padded on the right. The
        result depends on it by rounding only.

    Returns
    -------
    MetricSums
        ``text-loss``: the sum of ``-ln p(token | tokens before it)`` in nats and the
        number of tokens. Sums of several clients add; :func:`perplexity_of` reads them.

    Raises
    ------
    NonFiniteOutputError
        If a loss is not finite.
    ConfigurationError
        If window, overlap or batch size is out of range.
    """
    width = lm.max_length if window is None else window
    if width > lm.max_length:
        raise ConfigurationError(
            f"window: expected at most the {lm.max_length} positions of {lm.name!r}, "
            f"found {width}."
        )
    shared = max(width // 2, 1) if overlap is None else overlap
    rows: list[Window] = []
    for text in texts:
        rows += windows(tokenize(lm.tokenizer, text).input_ids, width, shared)
    total = MetricSums()
    for indices in batches_by_length([len(row.input_ids) for row in rows], batch_size):
        batch = [rows[index] for index in indices]
        for row, loss in zip(batch, _window_losses(lm, batch), strict=True):
            total += _token_sums(loss, row.num_predicted)
    return total


def perplexity(
    lm: LanguageModel, texts: Iterable[str], *, batch_size: int = 64
) -> float | None:
    """Return the perplexity of the texts, see :func:`text_loss`; ``None`` for none."""
    return perplexity_of(text_loss(lm, texts, batch_size=batch_size))


def perplexity_of(sums: MetricSums) -> float | None:
    """Return ``exp(mean loss)`` over all tokens; ``None`` if none was predicted.

    That is the mean over tokens, not over texts or clients. Infinite where it is too
    large for a float.

    Examples
    --------
    >>> one, two = (MetricSums({"text-loss": pair}) for pair in [(2.0, 1), (0.0, 3)])
    >>> round(perplexity_of(one + two), 4)
    1.6487
    """
    mean = sums.mean(TEXT_LOSS)
    if mean is None:
        return None
    try:
        return math.exp(mean)
    except OverflowError:
        return math.inf


@torch.no_grad()
def _window_losses(lm: LanguageModel, rows: Sequence[Window]) -> list[float]:
    """Return the summed loss of each window's predicted tokens."""
    batch = pad_batch([row.input_ids for row in rows], lm.pad_token_id)
    counts = [row.num_predicted for row in rows]
    index = torch.arange(len(rows)).repeat_interleave(torch.tensor(counts))
    positions = torch.cat(
        [torch.arange(row.first_predicted, len(row.input_ids)) for row in rows]
    )
    logits = lm.logits(final_hidden(lm, batch)[index, positions - 1])  # (token, vocab)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = batch.input_ids[index, positions].to(logits.device)
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    if not losses.isfinite().all():
        raise NonFiniteOutputError(
            f"Expected finite losses of {lm.name!r} on held-out text, found NaN or "
            "infinity. An edit has destroyed the model, or its dtype overflows: take "
            "the edit back or use a wider dtype."
        )
    parts = torch.split(losses.cpu().double(), counts)
    return [float(part.sum()) for part in parts]


def _token_sums(loss: float, count: int) -> MetricSums:
    """Return a loss, on the grid that makes sums exact, under the number of tokens."""
    total, _ = MetricSums.of({TEXT_LOSS: loss}).totals[TEXT_LOSS]
    return MetricSums({TEXT_LOSS: (total, count)})
