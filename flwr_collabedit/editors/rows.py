"""The texts that the loss of one edit reads, as token ids.

Meng et al. "Mass-Editing Memory in a Transformer", ICLR 2023, section 4.2: the target
token by token after the prompt in every context, and ``"{} is a"`` for the KL term.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.errors import RequestFormatError
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.tokens import TokenizedText, tokenize

KL_TEMPLATE = "{} is a"


@dataclass(frozen=True)
class TargetRow:
    """One text of an edit, cut after the last position that its loss reads.

    Attributes
    ----------
    edit : int
        Index of the request.
    template : int
        Index of the context template; the KL row comes after the last one.
    input_ids : tuple of int
        Token ids.
    subject_last : int
        Position of the subject's last token, where ``delta`` is added.
    first_read : int
        First position whose next-token distribution is read.
    target_ids : tuple of int
        Tokens to predict from there on; empty for the KL row, which reads one position.
    """

    edit: int
    template: int
    input_ids: tuple[int, ...]
    subject_last: int
    first_read: int
    target_ids: tuple[int, ...]

    @property
    def prefix(self) -> tuple[int, ...]:
        """Tokens that ``delta`` has no influence on."""
        return self.input_ids[: self.subject_last]

    @property
    def suffix(self) -> tuple[int, ...]:
        """Tokens from the subject's last one on."""
        return self.input_ids[self.subject_last :]

    @property
    def reads(self) -> range:
        """Columns of :attr:`suffix` that are read."""
        start = self.first_read - self.subject_last
        return range(start, start + max(1, len(self.target_ids)))


def target_rows(
    lm: LanguageModel, edit: int, request: EditRequest, contexts: ContextTemplates
) -> list[TargetRow]:
    """Return one row for each context and, last, the KL row of a request.

    Raises
    ------
    RequestFormatError
        If the target is split into other tokens in one context than in another: its
        loss would compare different things.
    """
    texts = [
        tokenize(lm.tokenizer, template, subject=request.subject, target=answer)
        for template in contexts.fill(request.prompt)
        for answer in [request.target_new]
    ]
    _check_same_target(request, contexts, texts)
    rows = [_prompt_row(edit, index, text) for index, text in enumerate(texts)]
    return [*rows, _kl_row(lm, edit, len(rows), request)]


def subject_rows(
    lm: LanguageModel, request: EditRequest, templates: Sequence[str]
) -> list[tuple[int, ...]]:
    """Return each template's token ids up to the subject's last token."""
    return [
        _up_to_subject(tokenize(lm.tokenizer, template, subject=request.subject))
        for template in templates
    ]


def _prompt_row(edit: int, index: int, text: TokenizedText) -> TargetRow:
    return TargetRow(
        edit=edit,
        template=index,
        input_ids=text.input_ids[:-1],  # the last target token is only predicted
        subject_last=_subject_last(text),
        first_read=text.target_start - 1,
        target_ids=tuple(text.target_ids),
    )


def _kl_row(
    lm: LanguageModel, edit: int, index: int, request: EditRequest
) -> TargetRow:
    # Read at the subject's last token (published code), so " is a" is not needed.
    [ids] = subject_rows(lm, request, [KL_TEMPLATE])
    return TargetRow(edit, index, ids, len(ids) - 1, len(ids) - 1, ())


def _subject_last(text: TokenizedText) -> int:
    assert text.subject_last is not None  # every template here has a subject
    return text.subject_last


def _up_to_subject(text: TokenizedText) -> tuple[int, ...]:
    return tuple(text.input_ids[: _subject_last(text) + 1])


def _check_same_target(
    request: EditRequest, contexts: ContextTemplates, texts: Sequence[TokenizedText]
) -> None:
    expected = tuple(texts[0].target_ids)
    for context, text in zip(contexts.templates, texts, strict=True):
        if tuple(text.target_ids) != expected:
            raise RequestFormatError(
                f"Request {request.case_id!r}: expected the target "
                f"{request.target_new!r} to be the tokens {expected} in every context, "
                f"found {tuple(text.target_ids)} in {context!r}. Change the prompt so "
                "that a space separates it from the target."
            )
