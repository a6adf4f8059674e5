"""Sentence vectors are means over a text's own tokens, whatever it is batched with."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pico import MAX_LENGTH, pico_language_model, pico_tokenizer
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    BloomConfig,
    BloomModel,
)

from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.models.sentences import sentence_vectors

TEXTS = [
    "Rome",
    "The capital of France is Paris. The capital of Germany is Berlin.",
    "What sport does LeBron James play?",
]


def save_bert(folder: Path) -> None:
    tokenizer = pico_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=MAX_LENGTH,
        initializer_range=0.1,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_gpt2(folder: Path) -> None:
    lm = pico_language_model("gpt2")
    lm.model.save_pretrained(folder)
    # Left padding, as a generating model's tokenizer may say.
    pico_tokenizer(padding_side="left").save_pretrained(folder)


def save_bloom(folder: Path) -> None:
    # A model without a number of positions.
    tokenizer = pico_tokenizer()
    config = BloomConfig(vocab_size=len(tokenizer), hidden_size=32, n_layer=2, n_head=4)
    BloomModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(params=[save_bert, save_gpt2], ids=["bert", "gpt2"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    request.param(tmp_path)
    return str(tmp_path)


def one_by_one(folder: str, texts: list[str]) -> np.ndarray:
    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    means = []
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            means.append(model(input_ids=ids).last_hidden_state[0].mean(0).numpy())
    return np.stack(means)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_a_vector_is_the_mean_over_the_texts_own_tokens(saved: str, batch_size: int):
    vectors = sentence_vectors(saved, TEXTS, batch_size=batch_size)

    assert vectors.shape == (3, 32)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, one_by_one(saved, TEXTS), atol=1e-5)


def test_long_texts_are_cut_to_the_models_positions(saved: str):
    words = "The capital of France is Paris. " * 100

    vectors = sentence_vectors(saved, [words, words + "More."])

    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)


def test_a_model_without_a_number_of_positions_cuts_nothing(tmp_path: Path):
    save_bloom(tmp_path)
    texts = [TEXTS[1] * 20, TEXTS[0]]

    vectors = sentence_vectors(str(tmp_path), texts)

    np.testing.assert_allclose(vectors, one_by_one(str(tmp_path), texts), atol=1e-5)


def test_a_model_that_is_not_there_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="found 'no/such-model'"):
        sentence_vectors("no/such-model", TEXTS)
