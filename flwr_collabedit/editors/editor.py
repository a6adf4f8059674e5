"""The interface that every editor has: requests in, what is changed out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

from flwr_collabedit.algebra.history import EditHistory
from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.models.codebook import Codebook

Progress = Callable[[int], None]
"""Called with the number of requests that are finished, whenever it grows."""


@dataclass(frozen=True)
class ModelEdit:
    """What edits have changed in a model: everything that the base model lacks.

    Attributes
    ----------
    deltas : mapping of str to Tensor
        What is added to each edited weight, ``(d_value, d_key)``, float64.
    codebook : Codebook or None
        What answers in the place of a weight (GRACE).
    history : EditHistory
        What the edits so far mean for the next solve, where the editor has one.
    """

    deltas: Mapping[str, Tensor] = field(default_factory=dict)
    codebook: Codebook | None = None
    history: EditHistory = field(default_factory=EditHistory)


@dataclass(frozen=True, kw_only=True)
class EditResult(ModelEdit):
    """What a model is changed by after an edit, and how the edit went.

    Attributes
    ----------
    seconds : dict of str to float
        Wall-clock time of the phases.
    """

    seconds: dict[str, float] = field(default_factory=dict)


class Editor(Protocol):
    """Edits a model and leaves it bit-identical: what to change is the result."""

    def edit(
        self,
        requests: Sequence[EditRequest],
        *,
        start: ModelEdit | None = None,
        progress: Progress | None = None,
    ) -> EditResult:
        """Return what writes ``requests`` on top of ``start``.

        Parameters
        ----------
        requests : sequence of EditRequest
            The facts; with none of them the result is ``start``, or no change.
        start : ModelEdit or None
            What earlier edits have changed; the result contains it. ``None``: nothing.
        progress : callable or None
            Called with the number of finished requests.
        """


@runtime_checkable
class MeasuringEditor(Editor, Protocol):
    """An editor whose layers are all measured at once, without targets."""

    def measure(
        self, requests: Sequence[EditRequest]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return what each edited weight is solved from, on the model as it is now.

        Returns
        -------
        dict of str to (Tensor, Tensor)
            Keys ``(d_key, n)`` and what the weight is to put out for each in addition,
            ``(d_value, n)``, float64, by the weight's name.
        """
