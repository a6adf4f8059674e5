"""The likeliest continuation of a prompt: greedy generation, many prompts at a time."""

from collections.abc import Callable, Sequence
from typing import cast

from torch import Tensor

from flwr_collabedit.errors import RequestFormatError
from flwr_collabedit.evaluation.batches import Progress, batches_by_length
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.padding import pad_batch
from flwr_collabedit.models.tokens import tokenize


def continue_greedily(
    lm: LanguageModel,
    prompts: Sequence[str],
    num_tokens: Sequence[int],
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> list[str]:
    """Return the likeliest continuation of every prompt, token by token.

    Parameters
    ----------
    lm : LanguageModel
        The model, whose own generation settings (repetition penalty and the like) are
        not applied.
    prompts : sequence of str
        Complete texts.
    num_tokens : sequence of int
        How many tokens to write after each prompt, >= 1; fewer where the text ends.
    batch_size : int
        Prompts per batch, >= 1; they are sorted by length and padded on the left. The
        result does not depend on it, rounding apart.
    progress : callable, optional
        Called after every batch with the number of prompts done and of all.

    Returns
    -------
    list of str
        The continuations, in the order of ``prompts``, white space included.

    Raises
    ------
    RequestFormatError
        If a prompt and the longest of ``num_tokens`` do not fit the model's context.
    ConfigurationError
        If ``batch_size`` is less than 1.
    """
    rows = [tokenize(lm.tokenizer, prompt).input_ids for prompt in prompts]
    for prompt, row in zip(prompts, rows, strict=True):
        check_room(lm, prompt, len(row) + max(num_tokens))
    texts: dict[int, str] = {}
    for batch in batches_by_length([len(row) for row in rows], batch_size, progress):
        budgets = [num_tokens[index] for index in batch]
        written = _generate(lm, [rows[index] for index in batch], max(budgets))
        for index, budget, ids in zip(batch, budgets, written, strict=True):
            texts[index] = decode_after(lm, rows[index], ids[:budget])
    return [texts[index] for index in range(len(rows))]


def check_room(lm: LanguageModel, prompt: str, length: int) -> None:
    """Raise ``RequestFormatError`` if the model has fewer positions than ``length``."""
    if length > lm.max_length:
        raise RequestFormatError(
            f"The prompt {prompt[:60]!r} and what is to follow take {length} "
            f"tokens; {lm.name!r} reads at most {lm.max_length}. Shorten the prompt or "
            "ask for fewer tokens."
        )


def _generate(
    lm: LanguageModel, rows: Sequence[Sequence[int]], num_tokens: int
) -> list[list[int]]:
    batch = pad_batch(rows, lm.pad_token_id, side="left").to(lm.device)
    # The model's own settings hold for whatever is not set here.
    generate = cast(Callable[..., Tensor], lm.model.generate)
    written = generate(
        batch.input_ids,
        attention_mask=batch.attention_mask,
        max_new_tokens=num_tokens,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        use_cache=True,
        pad_token_id=lm.pad_token_id,
        eos_token_id=lm.tokenizer.eos_token_id,
    )
    ids: list[list[int]] = written[:, batch.input_ids.shape[1] :].tolist()
    return ids


def decode_after(
    lm: LanguageModel, prompt_ids: Sequence[int], new_ids: Sequence[int]
) -> str:
    """Return the text of new tokens; special tokens are left out.

    They are decoded behind the prompt: alone, some tokenizers drop the first space.
    """
    before, whole = (
        str(
            lm.tokenizer.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )
        for ids in (list(prompt_ids), [*prompt_ids, *new_ids])
    )
    return whole[len(before) :]
