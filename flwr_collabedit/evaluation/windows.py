"""Windows over a long text, so that every token is predicted once, with context."""

from collections.abc import Sequence
from dataclasses import dataclass

from flwr_collabedit.errors import ConfigurationError


@dataclass(frozen=True)
class Window:
    """A part of a text that a model reads at once.

    Attributes
    ----------
    input_ids : tuple of int
        Its tokens.
    first_predicted : int
        Position in the window, >= 1, of the first token that no window before it
        predicts.
    """

    input_ids: tuple[int, ...]
    first_predicted: int

    @property
    def num_predicted(self) -> int:
        """Tokens that this window predicts."""
        return len(self.input_ids) - self.first_predicted


def windows(input_ids: Sequence[int], width: int, overlap: int) -> list[Window]:
    """Return windows of a text that together predict each token but the first once.

    Parameters
    ----------
    input_ids : sequence of int
        The text; with fewer than two tokens it has no window.
    width : int
        Tokens of a window at most, >= 2.
    overlap : int
        Tokens that a window shares with the one before it, 1 to ``width - 1``: what a
        token is given at least. The more, the more forward passes.

    Raises
    ------
    ConfigurationError
        If ``width`` or ``overlap`` is out of range.

    Examples
    --------
    >>> [(w.input_ids, w.first_predicted) for w in windows(range(5), 3, 1)]
    [((0, 1, 2), 1), ((2, 3, 4), 1)]
    """
    if width < 2 or not 1 <= overlap < width:
        raise ConfigurationError(
            f"Expected a window of at least 2 tokens and an overlap from 1 to one less "
            f"than it, found window {width} and overlap {overlap}."
        )
    if len(input_ids) < 2:
        return []
    found = [Window(tuple(input_ids[:width]), 1)]
    end = width
    while end < len(input_ids):
        start = end - overlap
        found.append(Window(tuple(input_ids[start : start + width]), overlap))
        end = start + width
    return found
