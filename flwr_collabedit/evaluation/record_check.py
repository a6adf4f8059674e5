"""Which edits will not work with a tokenizer, told before any work is done.

Only texts and token ids are looked at; no model is needed. A case with an error cannot
be edited or scored, or is contradicted; one with a warning can, but its scores mean
less than they seem to.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from flwr_collabedit.data.normal_form import fact_of, normal_form
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.errors import RequestFormatError, SubjectNotFoundError
from flwr_collabedit.evaluation.contests import contests_of, texts_of
from flwr_collabedit.evaluation.generation import EXTRA_TOKENS
from flwr_collabedit.models.tokens import require_fast, tokenize

CONTEXT_TOKENS = 12
"""Room for a generated context before a prompt: ten tokens, a full stop, a space."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with one case.

    Attributes
    ----------
    index : int
        Its place among the cases that were checked.
    case_id : int or str
        The case's.
    severity : {"error", "warning"}
        Whether the case cannot be used, or only its scores suffer.
    kind : str
        One of `ERRORS` or `WARNINGS`.
    text : str
        What was found, in a sentence.
    """

    index: int
    case_id: int | str
    severity: Literal["error", "warning"]
    kind: str
    text: str

    @property
    def is_error(self) -> bool:
        """Whether the case cannot be used."""
        return self.severity == "error"

    def __str__(self) -> str:
        return f"case {self.case_id!r}: {self.kind}: {self.text}"


ERRORS = {
    "subject": "the subject has no token of its own",
    "target": "the target has no tokens",
    "shared token": "prompt and target share a token",
    "unknown token": "the tokenizer cannot write it",
    "too long": "longer than the model reads",
    "contradiction": "another case gives the same fact another target",
}
WARNINGS = {
    "duplicate": "another case gives the same fact the same target",
    "no change": "the new target is the old one",
    "same first token": "new and old target begin with the same token",
}


def check_cases(
    tokenizer: PreTrainedTokenizerBase,
    cases: Sequence[EvaluationCase],
    max_length: int | None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[Problem]:
    """Return all problems of all cases, in their order.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        A fast one.
    cases : sequence of EvaluationCase
        What is to be edited by one party, and scored.
    max_length : int or None
        Positions of the model; ``None`` does not look at lengths. The rewrite prompt
        needs `CONTEXT_TOKENS` more than it has with a target, and a prompt that is
        continued freely `EXTRA_TOKENS` more than it has with the new target.
    progress : callable, optional
        Called after every case with how many are done, and of how many.

    Raises
    ------
    ConfigurationError
        If the tokenizer is a slow one, which has no offsets.
    """
    require_fast(tokenizer)
    facts: dict[tuple[str, str, str], dict[str, int]] = {}
    problems: list[Problem] = []
    for index, case in enumerate(cases):
        found = [*_rewrite(tokenizer, case), *_texts(tokenizer, case, max_length)]
        found += _facts(cases, index, facts)
        problems += [
            Problem(
                index,
                case.request.case_id,
                "error" if kind in ERRORS else "warning",
                kind,
                text,
            )
            for kind, text in dict.fromkeys(found)
        ]
        if progress is not None:
            progress(index + 1, len(cases))
    return problems


Found = Iterator[tuple[str, str]]


def _rewrite(tokenizer: PreTrainedTokenizerBase, case: EvaluationCase) -> Found:
    """Yield what is wrong with the subject and the targets."""
    request, true = case.request, case.target_true
    try:
        text = tokenize(tokenizer, request.prompt, subject=request.subject)
    except SubjectNotFoundError:
        yield "subject", f"no token of {request.prompt!r} is of {request.subject!r}"
    else:
        unknown = tokenizer.unk_token_id
        if unknown is not None and text.input_ids[text.subject_last or 0] == unknown:
            yield "unknown token", f"the end of the subject {request.subject!r}"
    if true is None:
        return
    if normal_form(true) == normal_form(request.target_new):
        yield "no change", f"{request.target_new!r} is the old answer {true!r}"
        return
    try:
        new_ids, old_ids = (
            tokenize(tokenizer, case.rewrite_prompt, target=target).target_ids
            for target in (request.target_new, true)
        )
    except RequestFormatError:
        return  # told of the texts
    if new_ids[0] == old_ids[0]:
        piece = str(tokenizer.decode([new_ids[0]])).strip() or " "
        yield (
            "same first token",
            f"{request.target_new!r} and {true!r} both begin with {piece!r}",
        )


def _texts(
    tokenizer: PreTrainedTokenizerBase, case: EvaluationCase, max_length: int | None
) -> Found:
    """Yield what is wrong with each prompt and the target that it is to get."""
    unknown = tokenizer.unk_token_id
    lengths: dict[str, int] = {}
    for prompt, target in texts_of(contests_of(case)):
        try:
            text = tokenize(tokenizer, prompt, target=target)
        except RequestFormatError:
            yield _no_target(tokenizer, prompt, target)
            continue
        if unknown is not None and unknown in text.target_ids:
            yield "unknown token", f"in the target {target!r}"
        needed = len(text.input_ids) + _room(case, prompt, target)
        lengths[prompt] = max(needed, lengths.get(prompt, 0))
    over = {
        p: n for p, n in lengths.items() if max_length is not None and n > max_length
    }
    if over:
        longest = max(over, key=over.__getitem__)
        yield (
            "too long",
            f"{_short(longest)} needs {over[longest]} of {max_length} positions"
            + (f", {len(over) - 1} more do" if len(over) > 1 else ""),
        )


def _room(case: EvaluationCase, prompt: str, target: str) -> int:
    """Return how many tokens come before a prompt or after its target."""
    if prompt == case.rewrite_prompt:
        return CONTEXT_TOKENS
    if prompt in case.paraphrase_prompts and target == case.request.target_new:
        return EXTRA_TOKENS
    return 0


def _no_target(
    tokenizer: PreTrainedTokenizerBase, prompt: str, target: str
) -> tuple[str, str]:
    if not tokenizer(target, add_special_tokens=False)["input_ids"]:
        return "target", f"{target!r} becomes no token"
    return "shared token", f"{_short(prompt)} and {target!r} are not apart"


def _facts(
    cases: Sequence[EvaluationCase],
    index: int,
    facts: dict[tuple[str, str, str], dict[str, int]],
) -> Found:
    """Yield what an earlier case says about the fact; ``facts`` keeps what was said."""
    request = cases[index].request
    targets = facts.setdefault(fact_of(request), {})
    target = normal_form(request.target_new)
    for other, first in targets.items():
        said = cases[first].request
        what = (
            f"case {said.case_id!r} gives {said.subject!r} {said.target_new!r} already"
        )
        if other == target:
            yield "duplicate", what
        else:
            yield "contradiction", f"{what}, this one {request.target_new!r}"
    targets.setdefault(target, index)


def _short(prompt: str) -> str:
    return repr(prompt if len(prompt) <= 60 else prompt[:57] + "...")
