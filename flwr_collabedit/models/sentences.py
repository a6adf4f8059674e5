"""Sentence vectors of a transformers encoder or decoder: the mean over its tokens.

Reimers and Gurevych. "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
    2019, EMNLP, section 3 (MEAN pooling).
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from flwr_collabedit.errors import ConfigurationError


def sentence_vectors(
    name: str,
    texts: Sequence[str],
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
) -> NDArray[np.float32]:
    """Return each text's mean last hidden state over its own tokens.

    Parameters
    ----------
    name : str
        What ``AutoModel.from_pretrained`` takes: a folder or a hub id, such as
        ``sentence-transformers/all-MiniLM-L6-v2``, FedLEKE's. With its tokenizer.
    texts : sequence of str
        Cut after as many tokens as the model was made for.
    device : torch.device or str
        Where the model runs, in float32.
    batch_size : int
        Texts a forward pass; changes the result by rounding only.

    Returns
    -------
    ndarray
        Shape ``(text, d_model)``, float32, not normalised.

    Raises
    ------
    ConfigurationError
        If the model or its tokenizer cannot be found.
    """
    model, tokenizer = _load(name)
    nn.Module.to(model, device)  # transformers' own wrapper of it has no usable type
    parts = [
        _mean_states(model, tokenizer, list(texts[start : start + batch_size]))
        for start in range(0, len(texts), batch_size)
    ]
    vectors: NDArray[np.float32] = torch.cat(parts).numpy()
    return vectors


def _load(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    try:
        model = AutoModel.from_pretrained(name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:  # transformers' two for an unusable source
        reason = str(error).strip().splitlines()[0]
        raise ConfigurationError(
            f"Expected a sentence model; found {name!r} ({reason}). Use the folder of "
            "a saved model and tokenizer, or a hub id that is in the local cache or "
            "reachable (HF_HUB_OFFLINE unset)."
        ) from error
    if tokenizer.pad_token is None:  # decoders; whatever it is, it is masked
        tokenizer.pad_token = tokenizer.eos_token
    if positions := getattr(model.config, "max_position_embeddings", None):
        tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    # Padding on the left would shift the positions of a decoder's tokens.
    tokenizer.padding_side = "right"
    return model.train(False), tokenizer


@torch.no_grad()
def _mean_states(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]
) -> Tensor:
    """Return the mean states ``(text, d_model)``, float32 on the CPU."""
    encoded = tokenizer(
        texts,
        padding=True,
        truncation=True,
        return_tensors="pt",
    ).to(model.device)
    mask = encoded["attention_mask"]  # (text, position)
    states = model(input_ids=encoded["input_ids"], attention_mask=mask)
    kept = states.last_hidden_state * mask.unsqueeze(-1)  # (text, position, d_model)
    means: Tensor = kept.sum(dim=1) / mask.sum(dim=1, keepdim=True)
    return means.cpu()
