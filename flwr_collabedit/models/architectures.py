"""Where each model family keeps what an editor touches, as data.

Adding a family is one entry in ``architectures.json`` and one pico configuration in
``tests/pico.py``; no code tests for a family's name.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from flwr_collabedit.errors import UnsupportedArchitectureError, nearest


class Architecture(BaseModel):
    """Names of the modules of one model family.

    Attributes
    ----------
    family : str
        The ``model_type`` of the model's configuration.
    blocks : str
        Path of the list of decoder blocks, from the model.
    down_projection : str
        Path of the MLP's second matrix, from a block: its input is MEMIT's key.
    attention_projection : str or None
        Path of the attention's output matrix, from a block; ``None`` where a norm
        stands between the block's two output matrices and the residual stream.
    logit_softcapping : str or None
        Name of the configuration's field ``cap`` when the family's logits are
        ``cap * tanh(logits / cap)``; ``None`` when they are not capped.

    Notes
    -----
    MEMIT takes the change of a block's output to be the change of its down
    projection's output. That holds for every family here but gemma2, whose blocks add
    ``RMSNorm(down_proj(key))`` to the residual stream: there a delta that maps the key
    to the residual ``r`` moves the block's output by a rescaled ``r``, so one pass
    realises another part of the residual than its share. Editing works mechanically,
    and repeated passes that measure the residual again correct for the scale.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    blocks: str
    down_projection: str
    attention_projection: str | None = None
    logit_softcapping: str | None = None


@cache
def known_architectures() -> Mapping[str, Architecture]:
    """Return every family of ``architectures.json`` by its name, read-only."""
    text = files(__package__).joinpath("architectures.json").read_text("utf-8")
    entries = json.loads(text).items()
    return MappingProxyType(
        {family: Architecture(family=family, **entry) for family, entry in entries}
    )


def architecture_for(config: PretrainedConfig) -> Architecture:
    """Return the entry of the family that ``config.model_type`` names.

    Raises
    ------
    UnsupportedArchitectureError
        If the family has no entry in ``architectures.json``.
    """
    known = known_architectures()
    family = config.model_type
    if family not in known:
        raise UnsupportedArchitectureError(
            f"Expected a model of one of the families {', '.join(known)}; found "
            f"{family!r}. {nearest(family, known)} A new family is one entry in "
            "flwr_collabedit/models/architectures.json."
        )
    return known[family]


def check_modules(model: PreTrainedModel, architecture: Architecture) -> None:
    """Raise unless the model has every module that the entry names, in every block.

    Raises
    ------
    UnsupportedArchitectureError
        If one is missing, or the blocks are not an ``nn.ModuleList``.
    """
    missing = architecture.blocks
    try:
        blocks = find_blocks(model, architecture)
        names = (architecture.down_projection, architecture.attention_projection)
        for index, block in enumerate(blocks):
            for name in filter(None, names):
                missing = f"{architecture.blocks}.{index}.{name}"
                block.get_submodule(name)
    except (AttributeError, TypeError) as error:
        raise UnsupportedArchitectureError(
            f"Expected the module {missing!r} in a model of the family "
            f"{architecture.family!r}; {type(model).__name__} has none. Load it as a "
            "causal language model, or correct the family's entry in "
            "flwr_collabedit/models/architectures.json."
        ) from error


def find_blocks(model: PreTrainedModel, architecture: Architecture) -> nn.ModuleList:
    """Return the model's decoder blocks, first to last.

    Raises
    ------
    AttributeError, TypeError
        If the model has nothing there, or not an ``nn.ModuleList``: a model that has
        passed :func:`check_modules` has one.
    """
    blocks = model.get_submodule(architecture.blocks)
    if not isinstance(blocks, nn.ModuleList):
        raise TypeError(f"{architecture.blocks!r} is a {type(blocks).__name__}")
    return blocks
