"""Language models from the package, a folder or the hub, on the asked device."""

from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from flwr_collabedit.errors import (
    ConfigurationError,
    UnsupportedArchitectureError,
    nearest,
)
from flwr_collabedit.models.architectures import architecture_for
from flwr_collabedit.models.language_model import LanguageModel

EMBEDDED_MODEL = Path(__file__).parents[1] / "assets" / "embedded_model"

_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load_language_model(
    name: str, *, dtype: str = "float32", device: str = "cpu"
) -> LanguageModel:
    """Return the shipped model, one from a folder or one from the Hugging Face hub.

    Parameters
    ----------
    name : str
        ``"embedded"`` for the model in this package, or what
        ``AutoModelForCausalLM.from_pretrained`` takes: a folder or a hub id.
    dtype : str
        Type of the weights: float32, float64, bfloat16 or float16.
    device : str
        A torch device, or ``"auto"``: the first accelerator, else the CPU.

    Raises
    ------
    ConfigurationError
        If ``dtype`` or ``device`` is unknown or the model cannot be found.
    UnsupportedArchitectureError
        If its family is unknown; no weights are loaded then.
    """
    if dtype not in _DTYPES:
        raise ConfigurationError(
            f"Expected a dtype; found {dtype!r}. {nearest(dtype, _DTYPES)}"
        )
    target = _device(device)
    source = str(EMBEDDED_MODEL) if name == "embedded" else name
    try:
        architecture_for(AutoConfig.from_pretrained(source))
        model = AutoModelForCausalLM.from_pretrained(source, dtype=_DTYPES[dtype])
        tokenizer = AutoTokenizer.from_pretrained(source)
    except UnsupportedArchitectureError:
        raise
    except (OSError, ValueError) as error:  # transformers' two for an unusable source
        raise ConfigurationError(_not_found(name, source, error)) from error
    nn.Module.to(model, target)  # transformers' own wrapper of it has no usable type
    return LanguageModel.from_parts(name, model, tokenizer)


def _device(device: str) -> torch.device:
    cuda = torch.cuda.is_available()
    if device == "auto":
        return torch.device("cuda" if cuda else "cpu")
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise ConfigurationError(
            f"Expected 'auto', 'cpu' or 'cuda' (or 'cuda:1', ...) as device; found "
            f"{device!r}."
        ) from error
    if target.type == "cuda" and not cuda:
        raise ConfigurationError(
            f"Expected a device of this machine; found {device!r}, but no CUDA device "
            "is available. Use 'auto' or 'cpu'."
        )
    return target


def _not_found(name: str, source: str, error: Exception) -> str:
    folder = Path(source)
    if folder.is_dir():
        tried = f"the folder {folder} was read"
    else:
        tried = f"no folder {folder} exists, and the hub gave nothing of that name"
    reason = str(error).strip().splitlines()[0]
    return (
        f"Expected a loadable model; found {name!r}: {tried} ({reason}). Use "
        "'embedded', the folder of a save_pretrained model, or a hub id that is in the "
        "local cache or reachable (HF_HUB_OFFLINE unset)."
    )
