"""The loss that an edit's target minimises, for many edits at once.

Meng et al. "Mass-Editing Memory in a Transformer", ICLR 2023, section 4.2, with the KL
and decay terms of its published code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import cross_entropy

from flwr_collabedit.editors.rows import TargetRow
from flwr_collabedit.editors.suffixes import prepare_groups
from flwr_collabedit.models.loading import LanguageModel


@dataclass(frozen=True)
class LossWeights:
    """Factors of the two terms beside the likelihood of the target."""

    kl_factor: float
    weight_decay: float


class TargetLoss:
    """The loss of every edit as a function of its ``delta``.

    For an edit with ``delta`` added to the output of block ``layer`` at the subject's
    last token::

        mean over contexts of mean over target tokens of -log p(token)
        + kl_factor * KL(initial || current)   at the subject's last token of "{} is a"
        + weight_decay * ||delta|| / ||h0||^2

    Parameters
    ----------
    lm : LanguageModel
        The model, unchanged.
    layer : int
        The last edited layer. Blocks up to it must be bypassed while losses are
        computed (:func:`~flwr_collabedit.editors.suffixes.upper_blocks`), and must not
        be while this object is made.
    rows : sequence of sequence of TargetRow
        For each edit its prompt rows, the bare prompt first, then its KL row.
    weights : LossWeights
        Factors of the terms.

    Attributes
    ----------
    initial : Tensor
        ``h0``, the block's output in the bare prompt, shape ``(edit, d_model)``.
    """

    def __init__(
        self,
        lm: LanguageModel,
        layer: int,
        rows: Sequence[Sequence[TargetRow]],
        weights: LossWeights,
    ) -> None:
        self._lm = lm
        self._weights = weights
        self._num_edits = len(rows)
        self._prompts = prepare_groups(lm, layer, [r for own in rows for r in own[:-1]])
        self._kl = prepare_groups(lm, layer, [own[-1] for own in rows])
        self._contexts = len(rows[0]) - 1
        self._initial_log_probs: Tensor | None = None  # (edit, vocab)
        self.dtype = torch.promote_types(lm.dtype, torch.float32)
        self.initial = self._bare_prompt_states().to(self.dtype)

    def keep(self, is_kept: Tensor) -> None:
        """Drop the rows of all edits but the kept ones (boolean, one an edit)."""
        self._prompts = [group.keep(is_kept) for group in self._prompts]
        self._kl = [group.keep(is_kept) for group in self._kl]
        self._prompts = [group for group in self._prompts if group.rows]
        self._kl = [group for group in self._kl if group.rows]

    def __call__(self, delta: Tensor) -> Tensor:
        """Return each edit's loss, shape ``(edit,)``; that of dropped edits is junk.

        The first call fixes the distributions that the KL term starts from, so its
        ``delta`` must be zero.
        """
        likelihood, current = self._forward(delta)
        if self._initial_log_probs is None:
            self._initial_log_probs = current.detach()
        initial = self._initial_log_probs
        divergence = (initial.exp() * (initial - current)).sum(dim=1)
        decay = vector_norm(delta, dim=1) / vector_norm(self.initial, dim=1).square()
        loss: Tensor = (
            likelihood
            + self._weights.kl_factor * divergence
            + self._weights.weight_decay * decay
        )
        return loss

    def _forward(self, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``-log p`` of the targets, ``(edit,)``, and the KL rows' log p."""
        groups = [*self._prompts, *self._kl]
        states = torch.cat([group.read(self._lm, delta) for group in groups])
        logits = self._lm.logits(states).to(self.dtype)  # (read, vocab)
        prompt_rows = [row for group in self._prompts for row in group.rows]
        kl_owner = torch.cat([group.owner for group in self._kl])
        sizes = [len(logits) - len(kl_owner), len(kl_owner)]
        for_target, for_kl = torch.split(logits, sizes)
        current = for_kl.new_zeros(self._num_edits, for_kl.shape[1]).index_copy(
            0, kl_owner, for_kl.log_softmax(dim=1)
        )
        return self._likelihood(for_target, prompt_rows), current

    def _likelihood(self, logits: Tensor, rows: Sequence[TargetRow]) -> Tensor:
        reads = [(row, token) for row in rows for token in row.target_ids]
        tokens = torch.tensor([token for _, token in reads], device=logits.device)
        owner = torch.tensor([row.edit for row, _ in reads], device=logits.device)
        weight = torch.tensor(
            [1 / (self._contexts * len(row.target_ids)) for row, _ in reads],
            dtype=self.dtype,
            device=logits.device,
        )
        surprise = cross_entropy(logits, tokens, reduction="none") * weight
        return surprise.new_zeros(self._num_edits).index_add(0, owner, surprise)

    def _bare_prompt_states(self) -> Tensor:
        group = self._prompts[0]
        states = group.hidden.new_zeros(self._num_edits, group.hidden.shape[2])
        for group in self._prompts:
            for index, row in enumerate(group.rows):
                if row.template == 0:
                    states[row.edit] = group.hidden[index, 0]
        return states
