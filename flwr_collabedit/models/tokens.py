"""A prompt as token ids: where its subject ends and where its target begins.

The only place that knows about leading spaces and beginning-of-text tokens. Positions
come from the character offsets of a fast tokenizer, on the text as a whole: tokenising
the parts one by one would lose merges across their borders and repeat the
beginning-of-text token.
"""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from flwr_collabedit.errors import (
    ConfigurationError,
    RequestFormatError,
    SubjectNotFoundError,
)


@dataclass(frozen=True)
class TokenizedText:
    """The token ids of a text, and the positions in it that editing needs.

    Attributes
    ----------
    input_ids : tuple of int
        With the special tokens that the tokenizer puts first, without those it puts
        last.
    target_start : int
        Position of the first token after the prompt; the number of tokens where the
        text has no target.
    subject_last : int or None
        Position of the subject's last token; ``None`` where no subject was given.
    subject_first : int or None
        Position of its first token.
    """

    input_ids: tuple[int, ...]
    target_start: int
    subject_last: int | None
    subject_first: int | None

    @property
    def target_ids(self) -> tuple[int, ...]:
        """Token ids of the target, with the space that precedes it."""
        return self.input_ids[self.target_start :]


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    *,
    subject: str | None = None,
    target: str | None = None,
) -> TokenizedText:
    """Return the text ``template`` + ``" "`` + ``target`` as token ids and positions.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        A fast one.
    template : str
        With one ``{}`` for the subject if there is one, else taken literally.
    subject : str or None
        Fills the slot. Its position is the slot's, wherever else the name occurs.
    target : str or None
        What follows the prompt. Exactly one space separates them, however ``target``
        begins; where ``template`` ends in a space, that is the one.

    Returns
    -------
    TokenizedText
        Where a token holds the end of the subject and what follows it (``"X's"``), it
        is the subject's last; likewise for the first.

    Raises
    ------
    SubjectNotFoundError
        If no token holds a part of the subject.
    RequestFormatError
        If the template has not exactly one slot, the prompt or the target is blank, or
        they share a token.
    ConfigurationError
        If the tokenizer is a slow one, which has no offsets.
    """
    prompt, slot = _fill(template, subject)
    text = prompt if target is None else _append(prompt, target)
    input_ids, offsets = _encode(tokenizer, text)
    first = last = None
    if slot is not None:
        first, last = _tokens_of(offsets, *slot)
        if last is None:
            raise SubjectNotFoundError(
                f"Expected a token of the subject {subject!r} in the prompt "
                f"{template!r}; found none. Use a subject that the tokenizer "
                f"{tokenizer.name_or_path!r} can write."
            )
    target_start = len(input_ids)
    if target is not None:
        target_start = _target_start(offsets, prompt, target)
    return TokenizedText(input_ids, target_start, last, first)


def require_fast(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerFast:
    """Return the tokenizer, or raise ``ConfigurationError`` if it is a slow one."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ConfigurationError(
            "Expected a fast tokenizer, which gives character offsets; found "
            f"{type(tokenizer).__name__}. Load it with AutoTokenizer from a folder "
            "that has a tokenizer.json."
        )
    return tokenizer


def require_vocabulary(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise for the empty tokenizer that transformers makes where files are missing.

    Raises
    ------
    ConfigurationError
        If all its tokens are special; ``name`` is the model's.
    """
    if len(tokenizer.get_vocab()) <= len(tokenizer.all_special_tokens):
        raise ConfigurationError(
            f"Expected a tokenizer with a vocabulary beside the model {name!r}; found "
            f"{len(tokenizer.get_vocab())} tokens. Save the tokenizer into the model's "
            "folder (tokenizer.save_pretrained)."
        )


def _fill(template: str, subject: str | None) -> tuple[str, tuple[int, int] | None]:
    """Return the prompt and where in it the subject stands, outer spaces apart."""
    if subject is None:
        return template, None
    if template.count("{}") != 1:
        raise RequestFormatError(
            f"Expected exactly one '{{}}' for the subject {subject!r}; found "
            f"{template.count('{}')} in {template!r}."
        )
    begin = template.index("{}")
    lead = len(subject) - len(subject.lstrip())
    slot = begin + lead, begin + max(lead, len(subject.rstrip()))
    return template.replace("{}", subject), slot


def _append(prompt: str, target: str) -> str:
    if not prompt.strip() or not target.strip():
        raise RequestFormatError(
            f"Expected a prompt and a target that are not blank; found {prompt!r} and "
            f"{target!r}."
        )
    separator = "" if prompt[-1:].isspace() else " "
    return prompt + separator + target.strip()


def _encode(
    tokenizer: PreTrainedTokenizerBase, text: str
) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
    """Return ids and character offsets, without special tokens after the text.

    A text that begins with the beginning-of-text token, as chats do, gets no other.
    """
    bos = tokenizer.bos_token
    encoding = require_fast(tokenizer)(
        text,
        add_special_tokens=not (bos and text.startswith(str(bos))),
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        verbose=False,
    )
    is_special = encoding["special_tokens_mask"]
    length = max((i + 1 for i, flag in enumerate(is_special) if not flag), default=0)
    return tuple(encoding["input_ids"][:length]), encoding["offset_mapping"][:length]


def _target_start(offsets: list[tuple[int, int]], prompt: str, target: str) -> int:
    """Return the first token past the prompt, or the one that its last space began."""
    written = len(prompt.rstrip())
    in_prompt = [
        index
        for index, (start, stop) in enumerate(offsets)
        if start < stop and (start < written or stop <= len(prompt))
    ]
    if not in_prompt or in_prompt[-1] + 1 == len(offsets):
        raise RequestFormatError(
            f"Expected tokens of the prompt, then tokens of the target {target!r}; "
            f"found them not apart after {prompt!r}. Use a tokenizer that starts a new "
            "token at a space."
        )
    return in_prompt[-1] + 1


def _tokens_of(
    offsets: list[tuple[int, int]], begin: int, end: int
) -> tuple[int | None, int | None]:
    """Return the first and last token that hold a character of ``begin`` up to ``end``.

    A token's offsets may include the space before it, never the one after it. The
    bytes of one character may be several tokens, all with its offsets.
    """
    holding = [
        index
        for index, (start, stop) in enumerate(offsets)
        if start < stop and start < end and stop > begin
    ]
    return min(holding, default=None), max(holding, default=None)
