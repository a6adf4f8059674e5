"""Devices that this machine does not have: tensors of the CPU that refuse to mix.

A tensor that is moved to ``lazy:0`` or ``lazy:1`` while `pretend_devices` is open stays
in the main memory, but says that it is there, and an operation on tensors of two
devices fails as it would on two GPUs. With accelerate's hooks a model can so be spread
over several devices without any.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import dispatch_model
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from flwr_collabedit.models.language_model import LanguageModel

CPU = torch.device("cpu")
DEVICES = (torch.device("lazy:0"), torch.device("lazy:1"))
_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
_INDEXED = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default)


class Placed(Tensor):
    """A tensor that says it is on another device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor, device: torch.device) -> "Placed":
        placed = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=device,
        )
        placed.inner = inner
        return placed

    def tolist(self) -> Any:
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, dict(kwargs or {}))


@contextmanager
def pretend_devices() -> Iterator[None]:
    """While open, tensors can be moved to `DEVICES` and made there."""
    with _Functions(), _Operations():
        yield


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, dict(kwargs or {}))


class _Functions(TorchFunctionMode):
    """What the other mode does not see.

    torch.tensor asks the device for memory itself, and a product with a single vector
    changes its result's shape in place, which a `Placed` cannot follow.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.tensor and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func is linear and args[0].dim() == 1:
            return func(args[0][None], *args[1:], **kwargs)[0]
        return func(*args, **kwargs)


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    device = _device_of(func, args, kwargs)
    if "device" in kwargs:
        kwargs["device"] = CPU
    found = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    if func._schema.is_mutable:  # in place: the caller's own tensor
        return args[0]
    return tree_map(lambda value: _place(value, device), found)


def _device_of(func: Any, args: Any, kwargs: Any) -> torch.device:
    """Return where the result is; raise where a GPU would."""
    asked = kwargs.get("device")
    read = args
    if func in _INDEXED and _all_on_cpu(args[1]):
        read = (args[0], args[2:])  # indices of the CPU serve everywhere
    leaves, _ = tree_flatten((read, kwargs))
    tensors = [one for one in leaves if isinstance(one, Tensor)]
    devices = {one.device for one in tensors if one.dim() > 0 or one.device != CPU}
    if func in _COPIES:
        return asked or args[0].device
    if len(devices) > 1:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {func} found "
            f"{sorted(map(str, devices))}"
        )
    return asked or next(iter(devices), CPU)


def _all_on_cpu(value: Any) -> bool:
    return all(
        one.device == CPU for one in tree_flatten(value)[0] if isinstance(one, Tensor)
    )


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, Placed) else value


def _place(value: Any, device: torch.device) -> Any:
    is_placed = isinstance(value, Tensor) and device != CPU
    return Placed(value, device) if is_placed else value


def spread(lm: LanguageModel, *, first_upper: int) -> LanguageModel:
    """Put the blocks from ``first_upper`` on, and the final norm, on the second device.

    The head goes with the embeddings where it is tied to them.
    """
    body = lm.model.base_model_prefix
    tied = lm.model.config.tie_word_embeddings
    placed = {
        name: DEVICES[0] if name == body or tied else DEVICES[1]
        for name, _ in lm.model.named_children()
    }
    del placed[body]
    for name, child in lm.decoder.named_children():
        if child is lm.blocks:
            for index in range(len(lm.blocks)):
                placed[lm.block_name(index)] = DEVICES[index >= first_upper]
        else:
            is_norm = "norm" in name or name == "ln_f"
            placed[f"{body}.{name}"] = DEVICES[is_norm]
    dispatch_model(
        lm.model,
        placed,
        main_device=DEVICES[0],
        skip_keys=lm.model._skip_keys_device_placement,
        force_hooks=True,
    )
    return lm
