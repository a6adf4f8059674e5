"""The loss that an edit's target minimises, for many edits at once.

Meng et al. "Mass-Editing Memory in a Transformer", ICLR 2023, section 4.2, with the KL
and decay terms of its published code.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor
from torch.linalg import vector_norm

from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.row_reader import RowReader
from flwr_collabedit.editors.rows import TargetRow
from flwr_collabedit.editors.suffixes import SuffixGroup
from flwr_collabedit.models.language_model import LanguageModel


class TargetLoss(Protocol):
    """A loss of every edit as a function of what is added to its hidden states.

    Attributes
    ----------
    initial : Tensor
        The hidden states of the bare prompt that deltas are added to, shape
        ``(edit, place, d_model)``. The last place is the one that is written.
    """

    initial: Tensor

    def __call__(self, delta: Tensor) -> Tensor:
        """Return each edit's loss, ``(edit,)``, for ``delta`` shaped as `initial`.

        Calls are the steps of one optimisation: the ``delta`` of the first must be
        zero. The loss of dropped edits is junk.
        """

    def is_finished(self, loss: Tensor) -> Tensor:
        """Return which edits need no further step, given the last call's ``loss``."""

    def keep(self, is_kept: Tensor) -> None:
        """Drop the rows of all edits but the kept ones (boolean, one an edit)."""


class MemitLoss:
    """MEMIT's loss: one delta, on what the last edited block or its MLP puts out.

    For an edit with ``delta`` added there at the subject's last token::

        mean over contexts of mean over target tokens of -log p(token)
        + kl_factor * KL(initial || current)   at the subject's last token of "{} is a"
        + weight_decay * ||delta|| / ||h0||^2

    The block adds its MLP's output to the residual stream as it is, so that a delta on
    either is one on the block's output; they differ in ``h0`` alone.

    Parameters
    ----------
    lm : LanguageModel
        The model, unchanged.
    rows : sequence of sequence of TargetRow
        For each edit its prompt rows, the bare prompt first, then its KL row.
    config : MemitConfig
        Layers and factors of the terms.
    places : sequence of str
        Name of the module that ``h0`` is the output of.
    """

    def __init__(
        self,
        lm: LanguageModel,
        rows: Sequence[Sequence[TargetRow]],
        config: MemitConfig,
        places: Sequence[str],
    ) -> None:
        [place] = places
        self._reader = RowReader(lm, config.layers[-1], rows, places)
        self._config = config
        states = self._reader.in_bare_prompts(lambda group: group.subject[place])
        self.initial = states[:, None]
        self.keep = self._reader.keep

    def __call__(self, delta: Tensor) -> Tensor:
        """Return each edit's loss, see `TargetLoss`."""

        def first(group: SuffixGroup) -> Tensor:
            return plus(group.hidden[:, 0], delta[group.owner, 0])

        seen = self._reader.read(first)
        return (
            seen.surprise
            + self._config.kl_factor * seen.divergence
            + self._config.weight_decay * relative_norms(delta, self.initial)
        )

    def is_finished(self, loss: Tensor) -> Tensor:
        """Return whose loss is below ``stop_loss``."""
        return loss < self._config.stop_loss


def plus(states: Tensor, delta: Tensor) -> Tensor:
    """Return the sum, formed in the precision of ``delta`` and rounded once.

    It has the dtype and the device of ``states``. A small delta that was rounded to
    half precision before would be rounded again by the sum.
    """
    return (states + delta.to(states.device)).to(states.dtype)


def relative_norms(delta: Tensor, initial: Tensor) -> Tensor:
    """Return ``||delta|| / ||initial||^2`` summed over the places, ``(edit,)``."""
    ratios: Tensor = vector_norm(delta, dim=2) / vector_norm(initial, dim=2).square()
    return ratios.sum(dim=1)
