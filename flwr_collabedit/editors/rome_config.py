"""Hyperparameters of ROME under our names, readable from the published JSON files.

Meng et al. "Locating and Editing Factual Associations in GPT", NeurIPS 2022,
https://arxiv.org/abs/2202.05262; the published files are ``hparams/ROME/*.json`` of
kmeng01/rome.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import field_validator

from flwr_collabedit.editors.config import IGNORED_KEYS, PUBLISHED_NAMES, MemitConfig
from flwr_collabedit.editors.editor_config import Positive

_MEMITS_WEIGHT = "mom2_update_weight"


class RomeConfig(MemitConfig):
    """What ROME needs to know: MEMIT's hyperparameters, for one layer, and which keys.

    Defaults without another source are those published for GPT-2 XL. What MEMIT has for
    batches, ``edits_per_batch``, changes nothing: edits are written one after another.

    Attributes
    ----------
    editor : {"rome"}
        Tells the configuration's JSON from MEMIT's.
    layers : tuple of int
        Exactly one.
    adjust_keys : bool
        Whether the direction is ``C0^-1 k`` (the paper, ``mom2_adjustment`` true) or
        ``k`` itself, which needs no second moment (EasyEdit's files for Llama).
    consistent_keys : bool
        Whether the key averaged over the contexts is used throughout (R-ROME: Gupta et
        al. "Rebuilding ROME: Resolving Model Collapse during Sequential Model
        Editing", EMNLP 2024), or in the direction only, and the bare prompt's key for
        the rest (published).
    second_moment_weight : None
        There is no ``lambda``: it would cancel in the direction.
    """

    published_names: ClassVar[Mapping[str, str]] = {
        **{key: ours for key, ours in PUBLISHED_NAMES.items() if key != _MEMITS_WEIGHT},
        "mom2_adjustment": "adjust_keys",
    }
    # The contexts are the editor's argument: a federation's parties share one list.
    ignored_keys: ClassVar[frozenset[str]] = (IGNORED_KEYS - {"mom2_adjustment"}) | {
        "context_template_length_params"
    }

    editor: Literal["rome"] = "rome"  # type: ignore[assignment]  # tells the classes apart
    clamp_norm_factor: Positive = 4.0
    adjust_keys: bool = True
    consistent_keys: bool = False
    second_moment_weight: None = None  # type: ignore[assignment]  # it has none

    @field_validator("layers")
    @classmethod
    def _one_layer(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if len(layers) != 1:
            raise ValueError(f"expected one layer, which ROME writes, found {layers}")
        return layers
