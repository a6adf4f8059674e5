"""Hyperparameters that were published, as data.

The files beside this module, ``hyperparameters/NAME.EDITOR.json``, have the values in
their published vocabulary, where they were published, and the sizes by which a model,
or a user's fine-tune of it, is recognised.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import BaseModel, ConfigDict
from transformers import GPT2Config

from flwr_collabedit.editor_names import EditorName
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.loading import EMBEDDED_MODEL
from flwr_collabedit.models.weights import weight_shapes

_EMBEDDED_FILES: tuple[tuple[EditorName, str], ...] = (
    ("memit", "edit"),
    ("pmet", "edit_pmet"),
    ("alphaedit", "edit_alphaedit"),
    ("rome", "edit_rome"),
    ("grace", "edit_grace"),
    ("malmen", "edit_malmen"),
    ("mend", "edit_mend"),
    ("ft", "edit_ft"),
)


class ModelShape(BaseModel):
    """By what a model is recognised: no two of the published ones share all four.

    Attributes
    ----------
    model_type : str
        Of its configuration, such as ``llama``.
    hidden_size, num_layers, d_key : int
        Width of the residual stream, decoder blocks, inputs of a down projection.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_type: str
    hidden_size: int
    num_layers: int
    d_key: int

    @classmethod
    def of(cls, lm: LanguageModel) -> "ModelShape":
        """Return the shape of a model."""
        [(_, d_key)] = weight_shapes(lm, [0]).values()
        return cls(
            model_type=lm.architecture.family,
            hidden_size=lm.hidden_size,
            num_layers=lm.num_layers,
            d_key=d_key,
        )


class HyperparameterSet(BaseModel):
    """Hyperparameters that somebody published for one model and one editor.

    Attributes
    ----------
    name : str
        Such as ``gpt2-xl``; unique among the sets of an editor.
    editor : str
        Whose they are.
    source : str
        Who published them, file and commit.
    model : ModelShape
        What they were published for.
    hyperparameters : mapping
        Under their published names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    editor: EditorName
    source: str
    model: ModelShape
    hyperparameters: Mapping[str, Any]


@cache
def published_sets() -> tuple[HyperparameterSet, ...]:
    """Return the shipped sets by name, the embedded model's first."""
    folder = files(__package__).joinpath("hyperparameters")
    shipped = [
        HyperparameterSet.model_validate_json(file.read_text("utf-8"))
        for file in folder.iterdir()
        if file.name.endswith(".json")
    ]
    shipped.sort(key=lambda one: (one.editor, one.name))
    embedded = [_embedded(*one) for one in _EMBEDDED_FILES]
    return (*embedded, *shipped)


def _embedded(editor: EditorName, file: str) -> HyperparameterSet:
    sizes = GPT2Config.from_json_file(EMBEDDED_MODEL / "config.json")
    text = (EMBEDDED_MODEL / f"{file}.json").read_text("utf-8")
    return HyperparameterSet(
        name="embedded",
        editor=editor,
        source="embedded_model/recipe.py of this package's repository",
        model=ModelShape(
            model_type="gpt2",
            hidden_size=sizes.n_embd,
            num_layers=sizes.n_layer,
            d_key=sizes.n_inner or 4 * sizes.n_embd,
        ),
        hyperparameters=json.loads(text),
    )
