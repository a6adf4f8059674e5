"""What an editor begins with: zeros for its weights and what earlier edits wrote."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flwr_collabedit.editors.editor import ModelEdit
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import weight_shapes


def start_deltas(
    lm: LanguageModel, layers: Sequence[int], start: ModelEdit | None
) -> dict[str, Tensor]:
    """Return the deltas of ``start`` with zeros for the layers that it lacks.

    They are float64, on the device of the model, ``(d_value, d_key)``, and a new
    dictionary, in which an editor may replace what it changes.

    Raises
    ------
    ConfigurationError
        If ``start`` has a codebook: its keys were taken on the weights that the editor
        would change.
    """
    if start is not None and start.codebook is not None:
        raise ConfigurationError(
            "Expected earlier edits of weights to go on from, found a codebook, whose "
            "keys were taken on the weights as they are. Edit the weights first, and "
            "then with GRACE."
        )
    deltas = {
        name: torch.zeros(shape, dtype=torch.float64, device=lm.device)
        for name, shape in weight_shapes(lm, layers).items()
    }
    for name, delta in (start.deltas if start else {}).items():
        deltas[name] = delta.to(lm.device, torch.float64)
    return deltas
