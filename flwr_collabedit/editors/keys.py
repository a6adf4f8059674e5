"""Keys and current values: what the edited layers read and write for each request.

Meng et al. "Mass-Editing Memory in a Transformer", ICLR 2023, section 4.3 and its
published code for the weights of the contexts.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.methods import target_modules
from flwr_collabedit.editors.rows import subject_rows
from flwr_collabedit.models.hooks import trace
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.padding import pad_batch


def collect_keys(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    layers: Sequence[int],
    contexts: ContextTemplates,
    *,
    rows_per_batch: int = 128,
) -> dict[int, Tensor]:
    """Return each layer's keys: the input of its down-projection at the subject.

    The key of a request is the mean over the groups of contexts of the mean over a
    group's contexts, at the subject's last token.

    Parameters
    ----------
    lm : LanguageModel
        The model as it is to be measured.
    requests : sequence of EditRequest
        May be empty.
    layers : sequence of int
        All are measured in one pass, so on the same model.
    contexts : ContextTemplates
        The same as for the targets.
    rows_per_batch : int
        Texts run at once (a request has one for each context).

    Returns
    -------
    dict of int to Tensor
        ``(d_key, edit)``, float64, on the device of the model.
    """
    if not layers:
        return {}
    names = {layer: lm.down_projection_name(layer) for layer in layers}
    rows = [
        row
        for request in requests
        for row in subject_rows(lm, request, contexts.fill(request.prompt))
    ]
    states = _last_states(lm, rows, list(names.values()), rows_per_batch, inputs=True)
    weights = torch.tensor(contexts.key_weights, dtype=torch.float64, device=lm.device)
    return {
        layer: _weighted(states[name].double(), weights, len(requests))
        for layer, name in names.items()
    }


def current_values(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    config: MemitConfig,
    *,
    rows_per_batch: int = 128,
) -> Tensor:
    """Return what targets are compared with, at each subject, without any context.

    It is the output of the last edited block (MEMIT) or of its MLP (PMET, ROME).

    Returns
    -------
    Tensor
        ``(edit, d_model)``, in the dtype and on the device of the model.
    """
    rows = [
        row
        for request in requests
        for row in subject_rows(lm, request, [request.prompt])
    ]
    name = target_modules(lm, config)[-1]
    return _last_states(lm, rows, [name], rows_per_batch, inputs=False)[name]


def _weighted(states: Tensor, weights: Tensor, num_edits: int) -> Tensor:
    """Average ``(edit * context, d)`` over the contexts; return ``(d, edit)``."""
    by_context = states.reshape(num_edits, len(weights), states.shape[1])
    return torch.einsum("ecd,c->de", by_context, weights)


@torch.no_grad()
def _last_states(
    lm: LanguageModel,
    rows: Sequence[tuple[int, ...]],
    names: Sequence[str],
    rows_per_batch: int,
    *,
    inputs: bool,
) -> Mapping[str, Tensor]:
    """Return each module's state at the last token of each row, ``(row, d)``.

    Rows of similar length share a batch, so that little is padded.
    """
    by_length = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    # An empty list of rows still runs one token, which tells the width.
    for start in range(0, max(1, len(rows)), rows_per_batch):
        indices = by_length[start : start + rows_per_batch]
        batch = [rows[index] for index in indices]
        padded = pad_batch(batch or [(lm.pad_token_id,)], lm.pad_token_id)
        with trace(lm.model, names, inputs=inputs, stop=True) as states:
            lm.decoder(
                input_ids=padded.input_ids.to(lm.device),
                attention_mask=padded.attention_mask.to(lm.device),
                position_ids=padded.position_ids.to(lm.device),
                use_cache=False,
            )
        last = torch.tensor([len(row) - 1 for row in batch], dtype=torch.long)
        for name in names:
            picked = states[name][torch.arange(len(batch)), last]
            parts[name].append(picked.to(lm.device))
    order = torch.tensor(by_length, dtype=torch.long, device=lm.device).argsort()
    return {name: torch.cat(part)[order] for name, part in parts.items()}
