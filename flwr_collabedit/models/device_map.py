"""Models whose modules are on several devices, or not in memory between calls.

accelerate moves each module's inputs to the module, and lends offloaded weights to it
for the time of its forward; between calls they are on the ``meta`` device. What leaves
the model is gathered on one device, `LanguageModel.device`; weights that are read or
edited stay in memory from then on (`make_resident`).
"""

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import nn

from flwr_collabedit.errors import ConfigurationError


def balanced_map() -> dict[str, Any]:
    """Return the options of ``from_pretrained`` for all accelerators of the machine.

    Weights that do not fit into memory are read from their checkpoint where that is in
    safetensors; others are written to ``offload_folder``, which does not exist yet.

    Raises
    ------
    ImportError
        If accelerate is not installed.
    """
    if find_spec("accelerate") is None:
        raise ImportError(
            "A model over several devices (device 'balanced') needs accelerate: "
            "install it by pip install 'flwr-collabedit[offload]'."
        )
    folder = Path(tempfile.gettempdir()) / f"collabedit-offload-{uuid4().hex}"
    return {"device_map": "balanced", "offload_folder": str(folder)}


def execution_device(module: nn.Module) -> torch.device:
    """Return where a module with weights of its own computes."""
    for hook in _hooks(module):
        if hook.execution_device is not None:
            return torch.device(hook.execution_device)
    return next(module.parameters()).device


def make_resident(module: nn.Module, name: str) -> None:
    """Let an offloaded module keep its weights where it computes, for good.

    A change of them would else be gone after the next forward.

    Parameters
    ----------
    module : nn.Module
        One with weights of its own, such as a down projection; nothing happens if they
        are in memory.
    name : str
        What errors call it.

    Raises
    ------
    ConfigurationError
        If the weights are not in memory and nothing knows where they are.
    """
    if not _is_absent(module):
        return
    for hook in _hooks(module):
        if hook.offload:
            hook.pre_forward(module)
            hook.offload = False
    if _is_absent(module):
        raise ConfigurationError(
            f"Expected the weights of {name!r} in memory; found them on the meta "
            "device. Load the model by load_language_model, or with from_pretrained "
            "and without torch.device('meta')."
        )


def _is_absent(module: nn.Module) -> bool:
    return any(one.is_meta for one in module.parameters(recurse=False))


def _hooks(module: nn.Module) -> tuple[Any, ...]:
    """Return accelerate's hooks of a module that place it on a device."""
    hook = getattr(module, "_hf_hook", None)
    parts = getattr(hook, "hooks", (hook,))  # several are in a SequentialHook
    return tuple(part for part in parts if hasattr(part, "execution_device"))
