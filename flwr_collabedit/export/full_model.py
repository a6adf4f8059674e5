"""A base model with its deltas written in, as the folder that transformers loads."""

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.export.written import Progress
from flwr_collabedit.files import check_space
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import as_stored, edited_weight, read_weight


def write_model(
    lm: LanguageModel,
    deltas: Mapping[str, Tensor],
    folder: Path,
    dtype: torch.dtype,
    progress: Progress,
) -> dict[str, float]:
    """Write the edited model, its tokenizer and its generation configuration.

    ``lm`` is not changed. Tied weights are written once, as ``save_pretrained`` does.

    Parameters
    ----------
    lm : LanguageModel
        The base model, whole on its devices.
    deltas : mapping of str to Tensor
        By parameter name, ``(d_value, d_key)``.
    folder : Path
        An existing folder.
    dtype : torch.dtype
        Of all floating point weights of the export.
    progress : callable
        Told after each edited layer.

    Returns
    -------
    dict of str to float
        How far the weight's change, of the base model in ``dtype``, is from the
        delta, relative to the delta's norm: what rounding costs.

    Raises
    ------
    ConfigurationError
        If some weights of the model are not in memory.
    DiskSpaceError
        If the weights would not fit; nothing is written then.
    """
    weights = _converted(lm, dtype)
    errors = {}
    for done, (name, delta) in enumerate(deltas.items(), start=1):
        edited = edited_weight(lm, name, delta, dtype)
        errors[name] = _rounding(edited, read_weight(lm.model, name).to(dtype), delta)
        weights[name] = as_stored(lm, name, edited)
        progress(done, len(deltas))
    check_space(folder.parent, _num_bytes(weights))
    lm.model.save_pretrained(folder, state_dict=weights)
    # `save_pretrained` writes the dtype of the model in memory, not of `state_dict`.
    config = copy.deepcopy(lm.model.config)
    config.dtype = dtype
    config.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return errors


def _converted(lm: LanguageModel, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the weights in ``dtype``; those that share memory go on sharing it."""
    converted: dict[tuple[object, ...], Tensor] = {}
    weights = {}
    for name, weight in lm.model.state_dict().items():
        if weight.is_meta:
            raise ConfigurationError(
                f"Expected all weights of {lm.name!r} in memory; found {name!r} "
                "offloaded. Load the model with device 'cpu'."
            )
        place = (weight.data_ptr(), weight.shape, weight.stride(), weight.device)
        if place not in converted:
            floating = weight.is_floating_point()
            converted[place] = weight.to(dtype) if floating else weight
        weights[name] = converted[place]
    return weights


def _rounding(edited: Tensor, base: Tensor, delta: Tensor) -> float:
    delta = delta.to(edited.device).double()
    left_out = edited.double() - base.double() - delta
    return float(left_out.norm()) / (float(delta.norm()) or 1.0)


def _num_bytes(weights: Mapping[str, Tensor]) -> int:
    return sum({one.data_ptr(): one.nbytes for one in weights.values()}.values())
