"""Hyperparameters of GRACE under our names, readable from the published files.

Hartvigsen et al. "Aging with GRACE", NeurIPS 2023; published are those of
``hparams/GRACE/*.yaml`` of zjunlp/EasyEdit. Of what these choose by name, this package
has Euclidean distances, ``replace_last`` (see `flwr_collabedit.models.codebook`),
``coverage`` and training without perturbation.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from flwr_collabedit.editors.editor_config import (
    Count,
    EditorConfig,
    NonNegative,
    Positive,
)


class GraceConfig(EditorConfig):
    """What GRACE needs to know besides the model and the requests.

    Attributes
    ----------
    editor, layers
        See `EditorConfig`; one layer, whose down projection the codebook stands at.
    radius : float
        Of a new entry, > 0 (``eps``). Keys are as far apart as the model's activations
        are large: the published 1.0 is no constant of nature.
    num_gradient_steps : int
        Steps for a value, at most, >= 1 (``n_iter``). Published: 50 to 200.
    learning_rate : float
        Adam's step size for a value, > 0 (``edit_lr``).
    value_start : {"cold", "warm"}
        Where a value starts: uniformly drawn from [0, 1], or what the module puts out
        (``val_init``).
    stop_loss : float
        A value whose loss falls below it is finished; 0 switches this off, which is the
        published way.
    seed : int
        Of values that start cold, >= 0.
    """

    published_names: ClassVar[Mapping[str, str]] = {
        "layers": "layers",
        "eps": "radius",
        "n_iter": "num_gradient_steps",
        "edit_lr": "learning_rate",
        "val_init": "value_start",
        "stop_loss": "stop_loss",
    }
    # None of these is read by the published code, or it is the model that is given.
    ignored_keys: ClassVar[frozenset[str]] = frozenset(
        {"alg_name", "model_name", "device", "val_reg", "reg", "num_pert", "dropout"}
    )

    editor: Literal["grace"] = "grace"
    radius: Positive = 1.0
    num_gradient_steps: Count = 100
    learning_rate: Positive = 1.0
    value_start: Literal["cold", "warm"] = "cold"
    stop_loss: NonNegative = 0.0
    seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("layers")
    @classmethod
    def _one_layer(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if len(layers) != 1:
            raise ValueError(f"expected one layer, found {layers}")
        return layers
