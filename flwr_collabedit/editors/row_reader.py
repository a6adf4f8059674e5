"""What the rows of many edits say, given the hidden states at their subjects.

Meng et al. "Mass-Editing Memory in a Transformer", ICLR 2023, section 4.2, with the KL
term of its published code; PMET reads the same rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from flwr_collabedit.editors.rows import TargetRow
from flwr_collabedit.editors.suffixes import SuffixGroup, prepare_groups, upper_blocks
from flwr_collabedit.models.language_model import LanguageModel


@dataclass(frozen=True)
class Reading:
    """What the rows of each edit said; that of dropped edits is junk.

    Attributes
    ----------
    surprise : Tensor
        Mean over contexts of the mean over target tokens of ``-log p(token)``, shape
        ``(edit,)``.
    divergence : Tensor
        KL divergence of the next token after the subject of ``"{} is a"`` from what it
        was in the first reading, shape ``(edit,)``.
    logits, tokens, owner : Tensor
        For each target token of each row: logits ``(read, vocab)``, its id and the
        index of its edit, both ``(read,)``.
    """

    surprise: Tensor
    divergence: Tensor
    logits: Tensor
    tokens: Tensor
    owner: Tensor

    def is_answered(self) -> Tensor:
        """Return for which edits every target token comes first, ``(edit,)`` bool."""
        logits = self.logits.detach()
        reached = logits.gather(1, self.tokens[:, None])[:, 0]
        is_missed = (reached < logits.amax(dim=1)).long()
        missed = torch.zeros_like(self.surprise, dtype=torch.long)
        return missed.index_add(0, self.owner, is_missed) == 0


class RowReader:
    """Runs the rows of many edits from the last edited block on.

    Parameters
    ----------
    lm : LanguageModel
        The model, unchanged.
    layer : int
        The last edited layer.
    rows : sequence of sequence of TargetRow
        For each edit its prompt rows, the bare prompt first, then its KL row.
    modules : sequence of str
        Modules, not above ``layer``, whose outputs are kept in `SuffixGroup.subject`.
    """

    def __init__(
        self,
        lm: LanguageModel,
        layer: int,
        rows: Sequence[Sequence[TargetRow]],
        modules: Sequence[str] = (),
    ) -> None:
        self._lm, self._layer = lm, layer
        self._num_edits = len(rows)
        prompts = [row for own in rows for row in own[:-1]]
        self._prompts = prepare_groups(lm, layer, prompts, modules)
        self._kl = prepare_groups(lm, layer, [own[-1] for own in rows], modules)
        self._contexts = len(rows[0]) - 1
        self._initial_log_probs: Tensor | None = None  # (edit, vocab)
        self._dtype = torch.promote_types(lm.dtype, torch.float32)

    def keep(self, is_kept: Tensor) -> None:
        """Drop the rows of all edits but the kept ones (boolean, one an edit)."""
        self._prompts = [group.keep(is_kept) for group in self._prompts]
        self._kl = [group.keep(is_kept) for group in self._kl]
        self._prompts = [group for group in self._prompts if group.rows]
        self._kl = [group for group in self._kl if group.rows]

    def in_bare_prompts(self, states: Callable[[SuffixGroup], Tensor]) -> Tensor:
        """Return those of a group's ``states``, ``(row, d)``, in each bare prompt.

        The result has shape ``(edit, d)``, at least float32.
        """
        found: Tensor | None = None
        for group in self._prompts:
            own = states(group).to(self._dtype)
            if found is None:
                found = own.new_zeros(self._num_edits, own.shape[1])
            for index, row in enumerate(group.rows):
                if row.template == 0:
                    found[row.edit] = own[index]
        assert found is not None  # there is a bare prompt for every edit
        return found

    def read(self, first: Callable[[SuffixGroup], Tensor]) -> Reading:
        """Return what the rows say with changed states at the subject's last token.

        The first reading fixes the distributions that divergences start from.

        Parameters
        ----------
        first : callable
            Gives for a group the output of block ``layer`` there, ``(row, d_model)``,
            in the dtype of the model.
        """
        groups = [*self._prompts, *self._kl]
        starts = [first(group) for group in groups]
        with upper_blocks(self._lm, self._layer):
            states = torch.cat(
                [
                    group.read(self._lm, start)
                    for group, start in zip(groups, starts, strict=True)
                ]
            )
        logits = self._lm.logits(states).to(self._dtype)  # (read, vocab)
        kl_owner = torch.cat([group.owner for group in self._kl])
        sizes = [len(logits) - len(kl_owner), len(kl_owner)]
        for_target, for_kl = torch.split(logits, sizes)
        current = for_kl.new_zeros(self._num_edits, for_kl.shape[1]).index_copy(
            0, kl_owner, for_kl.log_softmax(dim=1)
        )
        return self._reading(for_target, self._divergence(current))

    def _divergence(self, current: Tensor) -> Tensor:
        if self._initial_log_probs is None:
            self._initial_log_probs = current.detach()
        initial = self._initial_log_probs
        return (initial.exp() * (initial - current)).sum(dim=1)

    def _reading(self, logits: Tensor, divergence: Tensor) -> Reading:
        rows = [row for group in self._prompts for row in group.rows]
        reads = [(row, token) for row in rows for token in row.target_ids]
        tokens = torch.tensor([token for _, token in reads], device=logits.device)
        owner = torch.tensor([row.edit for row, _ in reads], device=logits.device)
        weight = torch.tensor(
            [1 / (self._contexts * len(row.target_ids)) for row, _ in reads],
            dtype=self._dtype,
            device=logits.device,
        )
        each = cross_entropy(logits, tokens, reduction="none") * weight
        surprise = each.new_zeros(self._num_edits).index_add(0, owner, each)
        return Reading(surprise, divergence, logits, tokens, owner)
