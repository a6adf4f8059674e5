"""Which facts an editor is trained on, and which, of other subjects, it is tried on.

The hash of a subject's name decides, so that all parties split alike, however many
facts they have and in whatever order.
"""

from collections.abc import Iterable
from hashlib import sha256

from flwr_collabedit.data.requests import EvaluationCase

EMBEDDED_SHARE = 0.5
"""Of the embedded world's subjects, real and invented, that is held out."""


def is_held_out(subject: str, share: float) -> bool:
    """Return whether a subject belongs to the ``share`` that nothing is trained on.

    A larger share holds out the subjects of a smaller one, and others.
    """
    number = int.from_bytes(sha256(subject.strip().encode()).digest()[:8], "big")
    return number < share * 2**64


def split_cases(
    cases: Iterable[EvaluationCase], share: float
) -> tuple[list[EvaluationCase], list[EvaluationCase]]:
    """Return the cases to train on and those of subjects that are held out."""
    parts: tuple[list[EvaluationCase], list[EvaluationCase]] = [], []
    for case in cases:
        parts[is_held_out(case.request.subject, share)].append(case)
    return parts
