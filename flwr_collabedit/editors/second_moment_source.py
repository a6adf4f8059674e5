"""What a second moment is estimated from: model, weight, text and how much of it."""

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.models.fingerprint import fingerprint
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import weight_shapes


class SecondMomentSource(BaseModel):
    """What a second moment is estimated from; two are the same or not usable alike.

    Attributes
    ----------
    model, revision : str
        What the model was loaded as; an empty revision is the hub's default.
    layer : int
        The edited layer.
    weight : str
        Name of the weight whose inputs the keys are.
    fingerprint : str
        Of the model's configuration, tokenizer and this weight.
    d_key : int
        Width of the keys.
    corpus : str
        Name of the text.
    num_samples : int
        Documents to read; 0 for as many as ``multiple`` takes.
    multiple : float
        Of a small sample, keys to read as a multiple of ``d_key``; 0 of a full one.
    shrink : bool
        Whether it is shrunk towards a scaled identity.
    max_length : int
        Tokens after which a document is cut; 0 where that is not known.
    dtype : str
        Precision in which keys enter the sums.
    origin : {"estimated", "npz"}
        Ours, or imported from a published file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    revision: str = ""
    layer: int
    weight: str
    fingerprint: str
    d_key: int
    corpus: str
    num_samples: int
    multiple: float = 0.0
    shrink: bool = False
    max_length: int
    dtype: str
    origin: Literal["estimated", "npz"] = "estimated"

    @property
    def file_name(self) -> str:
        """A name that differs wherever the settings do.

        The fingerprint is not in it: a file left by other weights under the same model
        name is to be refused, not passed over.
        """
        size = f"small{self.multiple:g}" if self.multiple else str(self.num_samples)
        parts = [
            self.model,
            self.revision,
            self.weight,
            self.corpus,
            f"{size}x{self.max_length}",
            self.dtype,
            "shrunk" if self.shrink else "",
            "npz" if self.origin == "npz" else "",
        ]
        safe = [re.sub(r"[^\w.-]+", "_", part).strip("_") for part in parts if part]
        return "--".join(safe) + ".safetensors"


def second_moment_sources(
    lm: LanguageModel,
    layers: Sequence[int],
    *,
    corpus_name: str,
    num_samples: int = 0,
    multiple: float = 0.0,
    shrink: bool | None = None,
    max_length: int = 1024,
    dtype: str = "float32",
    revision: str = "",
) -> dict[int, SecondMomentSource]:
    """Return what the second moments of some layers are to be estimated from.

    Parameters
    ----------
    lm : LanguageModel
        The unedited model.
    layers : sequence of int
        The edited layers.
    corpus_name : str
        Identifies the text.
    num_samples : int
        How many documents to read, from the first one on; 0 with ``multiple``.
    multiple : float
        For a small sample: how many tokens to read, as a multiple of ``d_key``; the
        document that reaches them is read to its end. 0 with ``num_samples``.
    shrink : bool or None
        Whether to shrink towards a scaled identity by Ledoit and Wolf's intensity;
        ``None`` shrinks a small sample and leaves a full one as it is.
    max_length : int
        Documents are cut to this many tokens, or to the model's positions.
    dtype : {"float32", "float64"}
        Precision of the keys; the sums are float64.
    revision : str
        Of a hub model.

    Raises
    ------
    ConfigurationError
        If not exactly one of ``num_samples`` and ``multiple`` is given.
    """
    if min(num_samples, multiple) != 0 or max(num_samples, multiple) <= 0:
        raise ConfigurationError(
            "Expected either a number of documents or a multiple of d_key > 0; found "
            f"{num_samples} and {multiple:g}. Give one, and 0 for the other."
        )
    lm.check_layers(layers)
    return {
        layer: SecondMomentSource(
            model=lm.name,
            revision=revision,
            layer=layer,
            weight=lm.weight_name(layer),
            fingerprint=fingerprint(lm, [layer]),
            d_key=weight_shapes(lm, [layer])[lm.weight_name(layer)][1],
            corpus=corpus_name,
            num_samples=num_samples,
            multiple=multiple,
            shrink=multiple > 0 if shrink is None else shrink,
            max_length=min(max_length, lm.max_length),
            dtype=dtype,
        )
        for layer in layers
    }
