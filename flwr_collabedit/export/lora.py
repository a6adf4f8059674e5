"""An edit as a LoRA adapter that `peft` loads: two thin matrices a layer.

Hu et al. "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, section 4.1:
``W + (alpha / r) B A``. Here ``alpha = r``, so that ``B A`` is the delta itself.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.export.low_rank import LowRank, factor
from flwr_collabedit.export.written import Progress
from flwr_collabedit.files import check_space
from flwr_collabedit.models.language_model import LanguageModel

ADAPTER_WEIGHTS = "adapter_model.safetensors"


def write_adapter(
    lm: LanguageModel,
    deltas: Mapping[str, Tensor],
    folder: Path,
    dtype: torch.dtype,
    progress: Progress,
    *,
    revision: str = "",
    max_rank: int | None = None,
) -> dict[str, LowRank]:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors``.

    The adapter targets the edited modules by their full names, no others. A layer whose
    delta is zero has none. The model is not touched, so that nothing is to be undone.

    Parameters
    ----------
    lm : LanguageModel
        The base model, for its modules and its name.
    deltas : mapping of str to Tensor
        By parameter name, ``(d_value, d_key)``.
    folder : Path
        An existing folder.
    dtype : torch.dtype
        Of the factors.
    progress : callable
        Told after each layer.
    revision : str
        Of the base model.
    max_rank : int or None
        Cut each delta to its ``max_rank`` largest singular values, >= 1.

    Returns
    -------
    dict of str to LowRank
        The factors that were written, and their errors.

    Raises
    ------
    ConfigurationError
        If `peft` is not installed, or every delta is zero.
    DiskSpaceError
        If the factors would not fit; nothing is written then.
    """
    config_class = _lora_config_class()
    factors = {}
    for done, (name, delta) in enumerate(deltas.items(), start=1):
        factors[name] = factor(delta.to(lm.device), max_rank=max_rank, dtype=dtype)
        progress(done, len(deltas))
    modules = {
        name.removesuffix(".weight"): one for name, one in factors.items() if one.rank
    }
    if not modules:
        raise ConfigurationError(
            "Expected an edit that changes a weight; found deltas of zero only, which "
            "no adapter stands for. Use the base model as it is."
        )
    tensors = {}
    for name, one in modules.items():
        prefix = f"base_model.model.{name}"
        tensors[f"{prefix}.lora_A.weight"] = one.right.contiguous()
        tensors[f"{prefix}.lora_B.weight"] = one.left.contiguous()
    check_space(folder.parent, sum(one.nbytes for one in tensors.values()))
    config = config_class(
        task_type="CAUSAL_LM",
        inference_mode=True,
        base_model_name_or_path=lm.model.name_or_path,
        revision=revision or None,
        lora_dropout=0.0,
        fan_in_fan_out=isinstance(lm.model.get_submodule(next(iter(modules))), Conv1D),
        **_ranks({name: one.rank for name, one in modules.items()}),
    )
    # `LoraConfig` makes a set of the names; a list keeps the file's bytes the same.
    config.target_modules = list(modules)
    config.save_pretrained(str(folder))
    save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    return factors


def _ranks(ranks: Mapping[str, int]) -> dict[str, Any]:
    """Return ``r`` and ``lora_alpha``, and patterns for the modules of lower rank."""
    largest = max(ranks.values())
    lower = {name: rank for name, rank in ranks.items() if rank != largest}
    return {
        "target_modules": list(ranks),
        "r": largest,
        "lora_alpha": largest,
        "rank_pattern": lower,
        "alpha_pattern": dict(lower),
    }


def _lora_config_class() -> Any:
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ConfigurationError(
            "LoRA adapters need peft: install it by pip install "
            "'flwr-collabedit[export]'."
        ) from error
    return LoraConfig
