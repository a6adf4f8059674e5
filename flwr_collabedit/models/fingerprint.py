"""A short text that is equal where two parties hold the same model."""

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import read_weight, weight_shapes

# How a model was stored or is to be run, not which function it is.
_VOLATILE = frozenset(
    {
        *("_name_or_path", "architectures", "dtype", "transformers_version"),
        *("use_cache", "return_dict", "output_hidden_states", "output_attentions"),
        *("id2label", "label2id", "problem_type", "chunk_size_feed_forward"),
    }
)


def describe(lm: LanguageModel, layers: Sequence[int]) -> EditedModel:
    """Return the fingerprint and the shapes of the edited weights."""
    return EditedModel(fingerprint(lm, layers), weight_shapes(lm, layers))


def fingerprint(lm: LanguageModel, layers: Sequence[int]) -> str:
    """Return the SHA-256 of the configuration, the tokenizer and the edited weights.

    Equal for copies of one model in float32 and float64, and after saving and loading.
    It reads the weights as they are: call it on the base weights, outside
    ``applied_deltas``.

    Parameters
    ----------
    lm : LanguageModel
        The unedited model.
    layers : sequence of int
        The edited layers. Weights of other layers do not enter.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = sha256()
    digest.update(_canonical(_config(lm.model.config)))
    digest.update(_canonical(_tokenizer(lm.tokenizer)))
    for name, shape in weight_shapes(lm, layers).items():
        digest.update(_canonical([name, shape]))
        weight = read_weight(lm.model, name).to("cpu", torch.float32)
        digest.update(weight.numpy().data)
    return digest.hexdigest()


def _config(config: PretrainedConfig) -> dict[str, Any]:
    return {key: v for key, v in config.to_dict().items() if key not in _VOLATILE}


def _tokenizer(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    # Left behind by the tokenizer's last call, whatever it was.
    return {k: v for k, v in content.items() if k not in ("padding", "truncation")}


def _canonical(content: object) -> bytes:
    return json.dumps(content, sort_keys=True).encode()
