"""A fact's prompt as token ids, and what each of its positions is to the subject."""

from dataclasses import dataclass
from typing import Literal, Self, get_args

from flwr_collabedit.data.known_facts import KnownFact
from flwr_collabedit.errors import RequestFormatError
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.tokens import tokenize

Role = Literal[
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "first subsequent token",
    "further tokens",
    "last token",
]
ROLES: tuple[Role, ...] = get_args(Role)
"""What a position can be, in the order of the text (Meng et al., 2022, figure 2)."""


@dataclass(frozen=True)
class TracedPrompt:
    """A prompt whose answer is the next token.

    Attributes
    ----------
    input_ids : tuple of int
        The prompt, without its answer.
    answer_id : int
        The answer's first token.
    subject_first, subject_last : int
        Positions of the subject's first and last token; the same for one of one token.
    """

    input_ids: tuple[int, ...]
    answer_id: int
    subject_first: int
    subject_last: int

    @classmethod
    def of(cls, lm: LanguageModel, fact: KnownFact) -> Self:
        """Return the fact's prompt in the model's tokens.

        Raises
        ------
        RequestFormatError, SubjectNotFoundError
            If subject, prompt and answer are not apart in the model's tokens, or do
            not fit its context.
        """
        row = tokenize(
            lm.tokenizer, fact.prompt, subject=fact.subject, target=fact.answer
        )
        first, last, length = row.subject_first, row.subject_last, row.target_start
        assert first is not None  # given a subject, tokenize finds it or raises
        assert last is not None
        if last >= length:
            raise RequestFormatError(
                f"Expected the subject {fact.subject!r} to end before the answer "
                f"{fact.answer!r}; found them in one token."
            )
        if len(row.input_ids) > lm.max_length:
            raise RequestFormatError(
                f"Expected at most {lm.max_length} tokens, which {lm.name!r} reads; "
                f"found {len(row.input_ids)} in {fact.prompt[:60]!r} with its answer."
            )
        return cls(row.input_ids[:length], row.target_ids[0], first, last)

    @property
    def positions(self) -> range:
        """The positions that a corrupted subject can change: from its first token on.

        Attention looks back only.
        """
        return range(self.subject_first, len(self.input_ids))

    def role(self, position: int) -> Role:
        """Return what one of `positions` is; of two roles the later in the text.

        Being the subject's last token goes before being the prompt's last one.
        """
        if position == self.subject_last:
            return "last subject token"
        if position == self.subject_first:
            return "first subject token"
        if position < self.subject_last:
            return "middle subject tokens"
        if position == len(self.input_ids) - 1:
            return "last token"
        if position == self.subject_last + 1:
            return "first subsequent token"
        return "further tokens"
