import pytest
import torch
from pico import pico_language_model
from torch import nn
from transformers import ByT5Tokenizer

from flwr_collabedit.errors import ConfigurationError, UnsupportedArchitectureError
from flwr_collabedit.models.language_model import LanguageModel


def test_decoder_and_logits_make_the_whole_model(
    lm: LanguageModel, input_ids: torch.Tensor
) -> None:
    expected = lm.model(input_ids).logits

    hidden = lm.decoder(input_ids=input_ids).last_hidden_state

    torch.testing.assert_close(lm.logits(hidden), expected)


def test_gemma2_logits_are_capped() -> None:
    lm = pico_language_model("gemma2", final_logit_softcapping=2.0)
    hidden = 100 * torch.randn(4, lm.hidden_size)
    uncapped = lm.model.lm_head(hidden)

    logits = lm.logits(hidden)

    assert uncapped.abs().max() > 10
    torch.testing.assert_close(logits, 2 * torch.tanh(uncapped / 2))


def test_head_bias_enters_the_logits() -> None:
    lm = pico_language_model("phi")
    lm.model.lm_head.bias.fill_(3.0)

    assert lm.logits(torch.zeros(lm.hidden_size)).tolist() == [3.0] * 420


def test_sizes_and_names_follow_the_model(lm: LanguageModel) -> None:
    assert (lm.num_layers, lm.hidden_size, lm.max_length) == (3, 32, 128)
    assert lm.model.get_submodule(lm.block_name(2)) is lm.blocks[2]
    projection = lm.model.get_submodule(lm.down_projection_name(1))
    assert lm.down_projection(1) is projection
    assert lm.model.get_parameter(lm.weight_name(1)) is projection.weight
    assert (lm.device.type, lm.dtype) == ("cpu", torch.float32)


def test_only_gptj_blocks_return_tuples(lm: LanguageModel) -> None:
    assert lm.block_returns_tuple == (lm.architecture.family == "gptj")


def test_loading_puts_the_model_to_rest() -> None:
    source = pico_language_model("gpt2")
    source.model.train().requires_grad_(True)

    lm = LanguageModel.from_parts("again", source.model, source.tokenizer)

    assert not any(module.training for module in lm.model.modules())
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())


def test_padding_falls_back_to_end_of_text_then_zero() -> None:
    lm = pico_language_model("gpt2")
    tokenizer = lm.tokenizer
    eos = tokenizer.convert_tokens_to_ids("</s>")

    assert lm.pad_token_id == eos
    tokenizer.pad_token = "e"
    assert lm.pad_token_id == tokenizer.convert_tokens_to_ids("e") != eos
    tokenizer.pad_token = tokenizer.eos_token = None
    assert lm.pad_token_id == 0


def test_a_missing_down_projection_is_named() -> None:
    lm = pico_language_model("llama")
    del lm.blocks[1].mlp.down_proj

    with pytest.raises(
        UnsupportedArchitectureError, match=r"'model\.layers\.1\.mlp\.down_proj'"
    ):
        LanguageModel.from_parts("broken", lm.model, lm.tokenizer)


def test_a_model_without_its_head_is_refused() -> None:
    lm = pico_language_model("gpt2")

    with pytest.raises(UnsupportedArchitectureError, match=r"'transformer\.h'"):
        LanguageModel.from_parts("headless", lm.model.transformer, lm.tokenizer)


def test_blocks_that_are_no_list_are_refused() -> None:
    lm = pico_language_model("gpt2")
    lm.model.transformer.h = nn.Sequential(*lm.blocks)

    with pytest.raises(UnsupportedArchitectureError, match=r"'transformer\.h'"):
        LanguageModel.from_parts("broken", lm.model, lm.tokenizer)


def test_a_slow_tokenizer_is_refused() -> None:
    lm = pico_language_model("gpt2")

    with pytest.raises(ConfigurationError, match=r"fast tokenizer.*ByT5Tokenizer"):
        LanguageModel.from_parts("slow", lm.model, ByT5Tokenizer())


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "at least one"),
        ([0, 3], "from 0 to 2"),
        ([-1], "from 0 to 2"),
        ([1, 1], r"Use \[1\]"),
        ([2, 0], r"Use \[0, 2\]"),
    ],
)
def test_wrong_layers_are_refused(layers: list[int], message: str) -> None:
    lm = pico_language_model("gpt2")
    lm.check_layers([0, 2])

    with pytest.raises(ConfigurationError, match=message):
        lm.check_layers(layers)
