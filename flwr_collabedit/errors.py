"""The errors that this package raises: expected, found, where, one remedy.

Strategies refuse a round with Flower's own ``AggregationError`` instead, so that
Flower's exit codes stay right.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class CollabEditError(Exception):
    """Root of every error that is raised on purpose by this package."""


class ConfigurationError(CollabEditError, ValueError):
    """A setting or hyperparameter that is unknown, out of range or contradictory."""


class UnsupportedArchitectureError(CollabEditError, ValueError):
    """A model whose family has no entry in ``models/architectures.json``."""


class RequestFormatError(CollabEditError, ValueError):
    """An edit request or evaluation record that does not have the expected form."""


class SubjectNotFoundError(CollabEditError, ValueError):
    """A subject that cannot be located among the tokens of its prompt."""


class SecondMomentError(CollabEditError, ValueError):
    """A second moment (covariance) that belongs to another model or is unusable."""


class NoSecondMomentError(SecondMomentError):
    """No second moment of a model where they are looked for."""


class HypernetworkError(CollabEditError, ValueError):
    """A hypernetwork of another model or other layers, untrained or damaged."""


class MatrixError(CollabEditError, ValueError):
    """A matrix whose shape, dtype or entries are not what its name stands for."""


class SingularSystemError(CollabEditError, ArithmeticError):
    """A linear system that has no Cholesky factor."""


class NonFiniteOutputError(CollabEditError, ArithmeticError):
    """A model whose output holds NaN or infinity, so that it cannot be scored."""


class PayloadError(CollabEditError, ValueError):
    """A message whose content does not follow ``docs/payload_format.md``."""


class PrivacyError(CollabEditError, ValueError):
    """An upload that its own party does not allow, since it would show too much."""


class WithdrawalError(CollabEditError, ValueError):
    """A withdrawal of something that was never added, or cannot be taken out again."""


class ClientError(CollabEditError, RuntimeError):
    """A client's failure as the server may hear of it: without its facts."""


class EditFileError(CollabEditError, ValueError):
    """A delta file that is missing, damaged or not of this format."""


class DiskSpaceError(CollabEditError, OSError):
    """A disk with less room than what is to be written needs."""


class CheckpointError(CollabEditError, ValueError):
    """A checkpoint of another model or of other options, or a damaged one."""


def shorten(values: Iterable[object], limit: int = 5) -> str:
    """Return the first ``limit`` values as text, followed by how many are left out."""
    items = [repr(value) for value in values]
    rest = len(items) - limit
    return ", ".join(items[:limit]) + (f" and {rest} more" if rest > 0 else "")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a sentence that names the known words nearest to ``name``."""
    names = sorted(known)
    matches = get_close_matches(name, names, n=3) or names
    return f"Known: {shorten(matches)}."
