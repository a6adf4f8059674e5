"""The words that multiple-choice and true-or-false questions are put in."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """How questions are put.

    Attributes
    ----------
    multiple_choice : str
        With ``{prompt}``, first, and ``{options}``.
    option, separator : str
        One option, with ``{label}`` and ``{text}``, and what stands between two.
    labels : tuple of str
        The four possible answers, in the order of the options.
    true_false : str
        With ``{prompt}``, first, and ``{answer}``.
    yes, no : str
        Answers to a statement that holds and to one that does not.
    """

    multiple_choice: str
    option: str
    separator: str
    labels: tuple[str, str, str, str]
    true_false: str
    yes: str
    no: str


WORDINGS: Mapping[str, Wording] = {
    "d4s": Wording(  # Table 1
        multiple_choice=(
            "{prompt} ? Below are four options: {options}. The correct option is"
        ),
        option="({label}) {text}",
        separator="; ",
        labels=("a", "b", "c", "d"),
        true_false=(
            "{prompt} {answer} . Is this sentence logical? Please answer yes or no. A:"
        ),
        yes="yes",
        no="no",
    ),
    # The same answers in few tokens: the embedded model reads 64 and writes a word
    # that it does not know letter by letter.
    "short": Wording(
        multiple_choice="{prompt} {options}. The one you take is",
        option="{label}: {text}",
        separator=" ",
        labels=("a", "b", "c", "d"),
        true_false="{prompt} {answer}. yes or no:",
        yes="yes",
        no="no",
    ),
    # Answers that are one token each to the embedded model too.
    "numbers": Wording(
        multiple_choice="{prompt} {options}. The one you take is",
        option="{label}: {text}",
        separator=" ",
        labels=("one", "two", "three", "four"),
        true_false="{prompt} {answer}. one or two:",
        yes="one",
        no="two",
    ),
}
