"""Hyperparameters of fine-tuning under our names, readable from the published files.

Those are ``hparams/FT`` of kmeng01/rome, kmeng01/memit and zjunlp/EasyEdit.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import field_validator

from flwr_collabedit.editors.config import IGNORED_KEYS
from flwr_collabedit.editors.editor_config import (
    Count,
    EditorConfig,
    NonNegative,
    Positive,
)

Objective = Literal["prompt-last", "target"]

_THEIR_OBJECTIVES = {"prompt_last": "prompt-last", "target_new": "target"}


class FineTuningConfig(EditorConfig):
    """What fine-tuning needs to know; defaults are those of the published code.

    Attributes
    ----------
    editor : {"ft"}
        Tells the configuration's JSON from other editors'.
    layers : tuple of int
        Layers whose down projections are trained, together. The published code also
        trains biases, and in FT-W all matrices of a block; here it is this one.
    objective : {"prompt-last", "target"}
        What the model is to say: every target token right after the prompt, whatever
        tokens stand before it (published, and wrong for targets of several tokens), or
        the target token by token (EasyEdit's FT-M, ``target_new``).
    num_steps : int
        Passes over the requests, at most, >= 1.
    learning_rate : float
        Adam's step size, > 0.
    requests_per_batch : int
        Requests of a gradient step, >= 1.
    max_change : float
        Most that any weight may change in an edit, >= 0; FT-L's L-infinity bound. 0
        for no bound.
    weight_decay : float
        Factor of the weight itself in its gradient, >= 0 (Adam with L2). FT-W's was to
        be ``n^-0.870288 e^0.155896`` for ``n`` requests, 1.17 for one and 0.00039 for
        10,000; but its code takes this law from a tuple, which JSON does not have, so
        that it decayed nothing. Its law, ``wd_power_law``, is therefore not read; give
        the number itself.
    stop_loss : float
        A batch with a lower loss makes no step, and a pass with a lower mean loss is
        the last; 0 switches this off. The default is the constant in the code.
    """

    published_names: ClassVar[Mapping[str, str]] = {
        "layers": "layers",
        "objective_optimization": "objective",
        "num_steps": "num_steps",
        "lr": "learning_rate",
        "batch_size": "requests_per_batch",
        "norm_constraint": "max_change",
        "weight_decay": "weight_decay",
    }
    # The code never reads kl_factor; tokens are never cut to max_length.
    ignored_keys: ClassVar[frozenset[str]] = IGNORED_KEYS | {
        "kl_factor",
        "max_length",
        "wd_power_law",
    }

    editor: Literal["ft"] = "ft"
    objective: Objective = "prompt-last"
    num_steps: Count = 25
    learning_rate: Positive = 5e-4
    requests_per_batch: Count = 64
    max_change: NonNegative = 0.0
    weight_decay: NonNegative = 0.0
    stop_loss: NonNegative = 1e-2

    @field_validator("objective", mode="before")
    @classmethod
    def _our_name(cls, name: object) -> object:
        return _THEIR_OBJECTIVES.get(name, name) if isinstance(name, str) else name

    @field_validator("max_change", mode="before")
    @classmethod
    def _none_is_no_bound(cls, value: object) -> object:
        return 0.0 if value is None else value
