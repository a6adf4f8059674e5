"""A model whose next-token probabilities are the same everywhere, and known."""

import torch

from flwr_collabedit.models.language_model import LanguageModel
from tests.pico import pico_language_model


def constant_language_model(probabilities: dict[str, float]) -> LanguageModel:
    """Return a GPT-J whose head ignores its input; the rest share what is left."""
    lm = pico_language_model("gptj", num_layers=1)
    vocab = len(lm.tokenizer)
    rest = (1 - sum(probabilities.values())) / (vocab - len(probabilities))
    values = torch.full((vocab,), rest)
    for token, probability in probabilities.items():
        (token_id,) = lm.tokenizer(token)["input_ids"]
        values[token_id] = probability
    lm.model.lm_head.weight.data.zero_()
    lm.model.lm_head.bias.data.copy_(values.log())
    return lm
