"""Weights in one orientation, changed by deltas and put back bit by bit.

A weight is ``W`` of shape ``(d_value, d_key)`` here, so that a layer is ``W @ key``.
``nn.Linear`` stores it so, transformers' ``Conv1D`` stores the transpose. The type of
the module decides, never the shape, which cannot tell when the weight is square.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from flwr_collabedit.errors import (
    ConfigurationError,
    UnsupportedArchitectureError,
    shorten,
)
from flwr_collabedit.models.device_map import make_resident
from flwr_collabedit.models.hooks import find_module
from flwr_collabedit.models.language_model import LanguageModel

_SUFFIX = ".weight"


def read_weight(model: nn.Module, name: str) -> Tensor:
    """Return a copy of a weight, shape ``(d_value, d_key)``, of its dtype and device.

    Parameters
    ----------
    model : nn.Module
        The model that ``name`` is relative to.
    name : str
        A parameter name such as ``transformer.h.3.mlp.c_proj.weight``.

    Raises
    ------
    ConfigurationError
        If the model has no such weight.
    UnsupportedArchitectureError
        If it belongs to neither an ``nn.Linear`` nor a ``Conv1D``.
    """
    return _oriented(model, name).clone(memory_format=torch.contiguous_format)


def weight_shapes(
    lm: LanguageModel, layers: Sequence[int]
) -> dict[str, tuple[int, int]]:
    """Return ``(d_value, d_key)`` of the layers' edited weights, in their order."""
    lm.check_layers(layers)
    shapes = {}
    for name in map(lm.weight_name, layers):
        d_value, d_key = _seen(_editable(lm.model, name)).shape
        shapes[name] = (d_value, d_key)
    return shapes


@contextmanager
def applied_deltas(lm: LanguageModel, deltas: Mapping[str, Tensor]) -> Iterator[None]:
    """Add deltas to the weights while the context lasts.

    On exit, also by an exception, every weight has the bits it had before.

    Parameters
    ----------
    lm : LanguageModel
        Its weights keep their dtype, device and storage.
    deltas : mapping of str to Tensor
        By parameter name, shape ``(d_value, d_key)``, any floating dtype and device.
        Sums are formed in float64 and then rounded to the weight's dtype.

    Raises
    ------
    ConfigurationError
        If a name is unknown, or a delta has another shape or a value that is not
        finite; no weight is written then.
    """
    for name, delta in deltas.items():
        _check_delta(lm, name, delta)
    with restored_weights(lm, deltas):
        for name, delta in deltas.items():
            _add(lm, name, delta)
        yield


def write_delta(lm: LanguageModel, name: str, delta: Tensor) -> None:
    """Add a delta to a weight for good; as :func:`applied_deltas`, which undoes it."""
    _check_delta(lm, name, delta)
    _add(lm, name, delta)


def edited_weight(
    lm: LanguageModel, name: str, delta: Tensor, dtype: torch.dtype
) -> Tensor:
    """Return weight plus delta, ``(d_value, d_key)``, rounded once from float64.

    As :func:`applied_deltas` writes it where ``dtype`` is the weight's; the model is
    not changed. Errors are the same.
    """
    _check_delta(lm, name, delta)
    return _sum(_oriented(lm.model, name), delta).to(dtype)


def as_stored(lm: LanguageModel, name: str, weight: Tensor) -> Tensor:
    """Return ``(d_value, d_key)`` in the order of the module's own axes, contiguous."""
    module = find_module(lm.model, name.removesuffix(_SUFFIX))
    return (weight.T if isinstance(module, Conv1D) else weight).contiguous()


@contextmanager
def restored_weights(lm: LanguageModel, names: Iterable[str]) -> Iterator[None]:
    """Give the named weights their bits back on exit, also after an exception.

    Keeps a copy of each on its device meanwhile.
    """
    weights = [_oriented(lm.model, name) for name in names]
    copies = [weight.clone() for weight in weights]
    try:
        yield
    finally:
        for weight, copy in zip(weights, copies, strict=True):
            weight.copy_(copy)


def _oriented(model: nn.Module, name: str) -> Tensor:
    """Return the weight's own storage, seen as ``(d_value, d_key)``."""
    module = _editable(model, name)
    make_resident(module, name)
    return _seen(module)


def _editable(model: nn.Module, name: str) -> nn.Linear | Conv1D:
    """Return the module that a weight belongs to."""
    if not name.endswith(_SUFFIX):
        raise ConfigurationError(
            f"Expected the name of a weight, ending in '{_SUFFIX}'; found {name!r}."
        )
    module = find_module(model, name.removesuffix(_SUFFIX))
    if isinstance(module, Conv1D):
        return module
    if isinstance(module, nn.Linear) and module.weight.is_floating_point():
        return module
    raise UnsupportedArchitectureError(
        f"Expected an unquantised nn.Linear or transformers Conv1D at {name!r}; found "
        f"{type(module).__module__}.{type(module).__name__}. Load the model in a "
        "floating point dtype, without adapters."
    )


def _seen(module: nn.Linear | Conv1D) -> Tensor:
    weight = module.weight.detach()
    return weight.T if isinstance(module, Conv1D) else weight


def _check_delta(lm: LanguageModel, name: str, delta: Tensor) -> None:
    weight = _oriented(lm.model, name)
    if delta.shape != weight.shape:
        raise ConfigurationError(
            f"Expected a delta of shape {tuple(weight.shape)} (d_value, d_key) for "
            f"{name!r} of model {lm.name!r}; found {tuple(delta.shape)}."
        )
    finite = delta.isfinite()
    if not finite.all():
        where = shorten((~finite).nonzero().tolist())
        raise ConfigurationError(
            f"Expected a finite delta for {name!r}; found NaN or infinity at {where}."
        )


def _add(lm: LanguageModel, name: str, delta: Tensor) -> None:
    weight = _oriented(lm.model, name)
    weight.copy_(_sum(weight, delta))


def _sum(weight: Tensor, delta: Tensor) -> Tensor:
    return weight.double() + delta.detach().to(weight.device).double()
