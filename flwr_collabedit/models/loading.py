"""Language models from the package, a folder or the hub, on the asked devices."""

import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
)

from flwr_collabedit.errors import (
    ConfigurationError,
    UnsupportedArchitectureError,
    nearest,
    shorten,
)
from flwr_collabedit.models.architectures import architecture_for
from flwr_collabedit.models.device_map import balanced_map
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.tokens import require_vocabulary

EMBEDDED_MODEL = Path(__file__).parents[1] / "assets" / "embedded_model"

_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load_language_model(
    name: str, *, revision: str = "", dtype: str = "float32", device: str = "cpu"
) -> LanguageModel:
    """Return the shipped model, one from a folder or one from the Hugging Face hub.

    Parameters
    ----------
    name : str
        ``"embedded"`` for the model in this package, or what
        ``AutoModelForCausalLM.from_pretrained`` takes: a folder or a hub id.
    revision : str
        Commit, tag or branch of a hub model; its default branch if empty.
    dtype : str
        Type of the weights: float32, float64, bfloat16 or float16.
    device : str
        A torch device; ``"auto"``: the first accelerator, else the CPU; or
        ``"balanced"``: the blocks over all accelerators, what they have no room for in
        the main memory and then on disk.

    Raises
    ------
    ConfigurationError
        If ``dtype`` or ``device`` is unknown, the model or its tokenizer cannot be
        found, weights are missing, or a revision is given for a folder.
    UnsupportedArchitectureError
        If its family is unknown; no weights are loaded then.
    torch.OutOfMemoryError
        If the device has no room for the weights.
    ImportError
        If ``"balanced"`` is asked for without accelerate.
    """
    if dtype not in _DTYPES:
        raise ConfigurationError(
            f"Expected a dtype; found {dtype!r}. {nearest(dtype, _DTYPES)}"
        )
    source = str(EMBEDDED_MODEL) if name == "embedded" else name
    if revision and Path(source).is_dir():
        raise ConfigurationError(
            f"Expected a revision for a model of the hub only; found {revision!r} for "
            f"{name!r}, a folder of this machine. Leave the revision out."
        )
    pinned = {"revision": revision} if revision else {}
    target = None if device == "balanced" else _device(device)
    placed = balanced_map() if target is None else {}
    with _explained(name, source, revision):
        architecture_for(AutoConfig.from_pretrained(source, **pinned))
    with _explained(name, source, revision), _enough_memory(name, dtype, device):
        model = _load_weights(source, dtype=_DTYPES[dtype], **pinned, **placed)
        if target is not None:
            # transformers' own wrapper of it has no usable type
            nn.Module.to(model, target)
    with _explained(name, source, revision):
        tokenizer = AutoTokenizer.from_pretrained(source, **pinned)
    require_vocabulary(tokenizer, name)
    return LanguageModel.from_parts(name, model, tokenizer, revision=revision)


def _load_weights(source: str, **options: Any) -> PreTrainedModel:
    """Load the model; transformers would draw missing weights at random."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        source, output_loading_info=True, **options
    )
    model: PreTrainedModel = loaded[0]
    if folder := options.get("offload_folder"):
        weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
    if missing := sorted(loaded[1]["missing_keys"]):
        raise ConfigurationError(
            f"Expected all weights of a {type(model).__name__} in {source!r}; found "
            f"none for {shorten(missing)}. It may have been saved without its "
            "language-modelling head: use the checkpoint of the whole model."
        )
    return model


def _device(device: str) -> torch.device:
    cuda = torch.cuda.is_available()
    if device == "auto":
        return torch.device("cuda" if cuda else "cpu")
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise ConfigurationError(
            "Expected 'auto', 'cpu', 'cuda' (or 'cuda:1', ...) or 'balanced' as "
            f"device; found {device!r}."
        ) from error
    if target.type == "cuda" and not cuda:
        raise ConfigurationError(
            f"Expected a device of this machine; found {device!r}, but no CUDA device "
            "is available. Use 'auto' or 'cpu'."
        )
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(
            f"Expected a device of this machine; found {device!r}, but the last CUDA "
            f"device is 'cuda:{torch.cuda.device_count() - 1}'."
        )
    return target


@contextmanager
def _explained(name: str, source: str, revision: str) -> Iterator[None]:
    """Say what was tried where transformers cannot use a source."""
    try:
        yield
    except (ConfigurationError, UnsupportedArchitectureError):
        raise
    except (OSError, ValueError) as error:  # transformers' two for an unusable source
        raise ConfigurationError(_not_found(name, source, revision, error)) from error


def _not_found(name: str, source: str, revision: str, error: Exception) -> str:
    folder = Path(source)
    if folder.is_dir():
        tried = f"the folder {folder} was read"
    else:
        wanted = f"of revision {revision!r} of it" if revision else "of that name"
        tried = f"no folder {folder} exists, and the hub gave nothing {wanted}"
    reason = str(error).strip().splitlines()[0]
    pinned = " Give a commit, tag or branch that the model's page lists, or none."
    return (
        f"Expected a loadable model with its tokenizer; found {name!r}: {tried} "
        f"({reason}). Use 'embedded', the folder of a save_pretrained model and "
        "tokenizer, or a hub id that is in the local cache or reachable "
        f"(HF_HUB_OFFLINE unset).{pinned if revision else ''}"
    )


@contextmanager
def _enough_memory(name: str, dtype: str, device: str) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise torch.OutOfMemoryError(
            f"Expected room for the weights of {name!r} in {dtype} on device "
            f"{device!r}; it ran out of memory while loading. Use weights of two bytes "
            "(dtype 'bfloat16'), more GPUs and the main memory (device 'balanced') or "
            "the CPU (device 'cpu'), or end what else uses the device."
        ) from error
