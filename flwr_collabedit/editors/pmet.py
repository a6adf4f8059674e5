"""PMET's loss: two deltas, on what attention and MLP add in the last edited block.

Li et al. "PMET: Precise Model Editing in a Transformer", AAAI 2024,
https://arxiv.org/abs/2308.08742, with the details of its published code.
The target is the output of the MLP alone, which the edited weight writes; the delta on
the attention takes up what the MLP should not store, and is thrown away. All else is
MEMIT's, see `flwr_collabedit.editors.methods`.
"""

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from flwr_collabedit.editors.pmet_config import PmetConfig
from flwr_collabedit.editors.row_reader import RowReader
from flwr_collabedit.editors.rows import TargetRow
from flwr_collabedit.editors.suffixes import SuffixGroup, upper_blocks
from flwr_collabedit.editors.target_loss import plus, relative_norms
from flwr_collabedit.models.hooks import replace_output, trace
from flwr_collabedit.models.language_model import LanguageModel


class PmetLoss:
    """PMET's loss of every edit, see `flwr_collabedit.editors.target_loss.TargetLoss`.

    With ``delta`` of shape ``(edit, 2, d_model)`` added at the subject's last token to
    the outputs ``a`` of the attention and ``m`` of the MLP::

        factor * mean over contexts of mean over target tokens of -log p(token)
        + kl_factor * KL(initial || current)   at the subject's last token of "{} is a"
        + weight_decay * (||delta_a|| / ||a0||^2 + ||delta_m|| / ||m0||^2)

    where ``factor`` is ``nll_factor``, times ``answered_nll_factor`` if every target
    token came first in the step before. Where the MLP follows the attention, it sees
    the attention's delta.

    Parameters
    ----------
    lm, rows
        As `flwr_collabedit.editors.target_loss.MemitLoss` has them.
    config : PmetConfig
        Layers, factors and limits.
    places : sequence of str
        Names of the output matrices of attention and MLP.

    Attributes
    ----------
    initial : Tensor
        ``a0`` and ``m0``, shape ``(edit, 2, d_model)``.
    """

    def __init__(
        self,
        lm: LanguageModel,
        rows: Sequence[Sequence[TargetRow]],
        config: PmetConfig,
        places: Sequence[str],
    ) -> None:
        self._lm, self._config, self._places = lm, config, places
        layer = config.layers[-1]
        # What the block reads; below block 0 are the embeddings, which can be run.
        self._below = lm.block_name(layer - 1) if layer else None
        modules = [*self._places, *([self._below] if self._below else [])]
        self._reader = RowReader(lm, layer, rows, modules)
        initial = [self._before(name) for name in self._places]
        self.initial = torch.stack(initial, dim=1)
        self._is_answered = torch.zeros_like(self.initial[:, 0, 0], dtype=torch.bool)
        self._divergence = torch.zeros_like(self.initial[:, 0, 0])
        self.keep = self._reader.keep

    def __call__(self, delta: Tensor) -> Tensor:
        """Return each edit's loss, see `TargetLoss`."""
        config = self._config
        seen = self._reader.read(lambda group: self._block_output(group, delta))
        divergence = config.kl_factor * seen.divergence
        answered = config.nll_factor * config.answered_nll_factor
        factor = torch.full_like(self._divergence, config.nll_factor)
        factor = factor.masked_fill(self._is_answered, answered)
        # For is_finished, and the factor of the next step.
        self._is_answered = seen.is_answered()
        self._divergence = divergence.detach()
        decay = config.weight_decay * relative_norms(delta, self.initial)
        return factor * seen.surprise + divergence + decay

    def is_finished(self, loss: Tensor) -> Tensor:
        """Return whose loss or, if answered, whose divergence is low enough."""
        is_low = loss < self._config.stop_loss
        if self._config.stop_divergence is None:
            return is_low
        is_near = self._divergence <= self._config.stop_divergence
        return is_low | (self._is_answered & is_near)

    def _before(self, name: str) -> Tensor:
        """Return a module's output in each bare prompt, ``(edit, d_model)``."""
        return self._reader.in_bare_prompts(lambda group: group.subject[name])

    def _block_output(self, group: SuffixGroup, delta: Tensor) -> Tensor:
        """Return the block's output at the subject's last token, ``(row, d_model)``.

        The deltas change no other position there: of the attention, only its output
        moves. So the block runs on this one token, with the attention's output put in.
        """
        lm, (attention, mlp) = self._lm, self._places
        added = delta[group.owner]  # (row, place, d_model)
        attended = plus(group.subject[attention], added[:, 0])[:, None]
        block = lm.block_name(group.layer)
        ids = group.suffix.input_ids[:, :1]
        with ExitStack() as hooks:
            hooks.enter_context(upper_blocks(lm, group.layer - 1))
            if self._below is not None:
                start = group.subject[self._below][:, None]
                hooks.enter_context(
                    replace_output(lm.model, self._below, lambda _: start)
                )
            for name, change in (
                (attention, lambda _: attended),
                (mlp, lambda written: plus(written, added[:, 1:])),
            ):
                hooks.enter_context(replace_output(lm.model, name, change))
            outputs = hooks.enter_context(trace(lm.model, [block], stop=True))
            lm.decoder(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                position_ids=group.suffix.position_ids[:, :1],
                use_cache=False,
            )
        return outputs[block][:, 0].to(lm.device)
