"""The part of an edit's rows that its target changes, run above the edited blocks.

Blocks up to the last edited one and positions before the subject's last token do not
depend on ``delta``: both are run once. What is left at every step is the suffix of each
row in the upper blocks.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from flwr_collabedit.editors.prefixes import Continuation, PrefixCache
from flwr_collabedit.editors.rows import TargetRow
from flwr_collabedit.models.hooks import bypassed, replace_output, trace
from flwr_collabedit.models.language_model import LanguageModel

# Rows run together may be padded by at most this factor: padding costs as tokens do.
MAX_PADDING = 1.25


@dataclass(frozen=True)
class SuffixGroup:
    """Rows with suffixes of about equal length, ready to run above ``layer``.

    Attributes
    ----------
    layer : int
        The last edited layer.
    rows : tuple of TargetRow
        What the group holds, in its order.
    owner : Tensor
        Index of each row's edit, shape ``(row,)``.
    past : PrefixCache
        Keys and values of the prefixes.
    suffix : Continuation
        The suffixes; column 0 is the subject's last token.
    hidden : Tensor
        Output of block ``layer`` without ``delta``, ``(row, position, d_model)``.
    subject : dict of str to Tensor
        Outputs without ``delta`` of the modules that `prepare` was asked for, at the
        subject's last token, ``(row, d_model)``, by name.
    """

    layer: int
    rows: tuple[TargetRow, ...]
    owner: Tensor
    past: PrefixCache
    suffix: Continuation
    hidden: Tensor
    subject: Mapping[str, Tensor]

    @classmethod
    def prepare(
        cls,
        lm: LanguageModel,
        layer: int,
        rows: Sequence[TargetRow],
        past: PrefixCache,
        modules: Sequence[str] = (),
    ) -> "SuffixGroup":
        """Run the blocks up to ``layer`` on the suffixes of ``rows``.

        ``modules`` are names of those, not above ``layer``, to keep the output of.
        """
        suffix = past.continuation(lm, [row.suffix for row in rows])
        name = lm.block_name(layer)
        names = [*modules, name]
        with torch.no_grad(), trace(lm.model, names, stop=True) as outputs:
            _decode(lm, suffix, past)
        owner = torch.tensor([row.edit for row in rows], device=lm.device)
        subject = {
            module: outputs[module][:, 0].clone().to(lm.device) for module in modules
        }
        hidden = outputs[name].to(lm.device)
        kept = past.above(layer)
        return cls(layer, tuple(rows), owner, kept, suffix, hidden, subject)

    def keep(self, is_kept: Tensor) -> "SuffixGroup":
        """Return the group without the rows whose edit is not kept.

        ``is_kept`` is boolean and has one entry for each edit.
        """
        [index] = torch.nonzero(is_kept[self.owner], as_tuple=True)
        if len(index) == len(self.rows):
            return self
        return SuffixGroup(
            self.layer,
            tuple(self.rows[i] for i in index.tolist()),
            self.owner[index],
            self.past.select(index),
            self._select_suffix(index),
            self.hidden[index],
            {name: states[index] for name, states in self.subject.items()},
        )

    def read(self, lm: LanguageModel, first: Tensor) -> Tensor:
        """Return the final hidden states that the rows read.

        Blocks up to ``layer`` must be bypassed (`upper_blocks`).

        Parameters
        ----------
        lm : LanguageModel
            The model; gradients flow to ``first`` only.
        first : Tensor
            Output of block ``layer`` at the subject's last token, ``(row, d_model)``.

        Returns
        -------
        Tensor
            ``(read, d_model)``, row after row, after the final norm.
        """
        start = torch.cat([first[:, None], self.hidden[:, 1:]], dim=1)
        with replace_output(lm.model, lm.block_name(self.layer), lambda _: start):
            final = _decode(lm, self.suffix, self.past)
        return final[self._read_index()]

    def _read_index(self) -> tuple[Tensor, Tensor]:
        pairs = [(i, column) for i, row in enumerate(self.rows) for column in row.reads]
        index = torch.tensor(pairs, device=self.owner.device)
        return index[:, 0], index[:, 1]

    def _select_suffix(self, index: Tensor) -> Continuation:
        prefix_width = int(self.past.lengths[index].max()) if len(index) else 0
        surplus = self.past.width - prefix_width
        return Continuation(
            self.suffix.input_ids[index],
            self.suffix.position_ids[index],
            self.suffix.attention_mask[index][:, surplus:],
        )


def prepare_groups(
    lm: LanguageModel,
    layer: int,
    rows: Sequence[TargetRow],
    modules: Sequence[str] = (),
) -> list[SuffixGroup]:
    """Return ``rows`` as groups of similar suffix length, prefixes already run.

    ``modules`` as in `SuffixGroup.prepare`.
    """
    past, order = _run_prefixes(lm, rows)
    groups = []
    for places in _by_length([len(rows[index].suffix) for index in order]):
        chosen = past.select(torch.tensor(places, device=lm.device))
        members = [rows[order[place]] for place in places]
        groups.append(SuffixGroup.prepare(lm, layer, members, chosen, modules))
    return groups


def _run_prefixes(
    lm: LanguageModel, rows: Sequence[TargetRow]
) -> tuple[PrefixCache, list[int]]:
    """Run what all rows of a context begin with once, then the rest of each prefix.

    Returns the cache, and for each of its rows the index in ``rows``.
    """
    shared: dict[int, tuple[int, ...]] = {}
    for row in rows:
        before = shared.get(row.template, row.prefix)
        shared[row.template] = _common_start(before, row.prefix)
    templates = list(shared)
    contexts = PrefixCache.empty(lm, len(templates))
    contexts = contexts.extend(lm, [shared[template] for template in templates])
    rests = [row.prefix[len(shared[row.template]) :] for row in rows]
    parts, order = [], []
    for indices in _by_length([len(rest) for rest in rests]):
        place = [templates.index(rows[index].template) for index in indices]
        chosen = contexts.select(torch.tensor(place, device=lm.device))
        parts.append(chosen.extend(lm, [rests[index] for index in indices]))
        order += indices
    return PrefixCache.join(parts), order


def upper_blocks(lm: LanguageModel, layer: int) -> AbstractContextManager[None]:
    """Bypass the blocks up to ``layer``, none for -1, while the context is open."""
    return bypassed(lm.blocks[: layer + 1], as_tuple=lm.block_returns_tuple)


def _decode(lm: LanguageModel, suffix: Continuation, past: PrefixCache) -> Tensor:
    output: Tensor = lm.decoder(
        input_ids=suffix.input_ids,
        attention_mask=suffix.attention_mask,
        position_ids=suffix.position_ids,
        past_key_values=past.as_past(),
        use_cache=True,
    ).last_hidden_state
    return output.to(lm.device)


def _common_start(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    length = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        length += 1
    return one[:length]


def _by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Return indices in groups whose longest is at most MAX_PADDING the shortest."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if groups and lengths[index] <= MAX_PADDING * lengths[groups[-1][0]]:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups
