from pathlib import Path

import pytest
import torch
from pico import pico_language_model, pico_tokenizer
from transformers import AutoModelForCausalLM

from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.models.fingerprint import describe, fingerprint
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.loading import load_language_model
from flwr_collabedit.models.weights import write_delta

BASE = fingerprint(pico_language_model("gpt2"), [1])


def test_it_is_the_same_for_the_same_model() -> None:
    assert fingerprint(pico_language_model("gpt2"), [1]) == BASE
    assert len(BASE) == 64


def test_float64_copy_has_the_same_fingerprint(lm: LanguageModel) -> None:
    copy = pico_language_model(lm.architecture.family, dtype=torch.float64)

    assert fingerprint(copy, [1]) == fingerprint(lm, [1])


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_it_survives_saving_and_loading(family: str, tmp_path: Path) -> None:
    lm = pico_language_model(family)
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)

    loaded = load_language_model(str(tmp_path), dtype="float64")

    assert fingerprint(loaded, [0, 1]) == fingerprint(lm, [0, 1])


def test_one_changed_weight_changes_it() -> None:
    lm = pico_language_model("gpt2")
    delta = torch.zeros(32, 64)
    delta[3, 7] = 1e-3

    write_delta(lm, lm.weight_name(1), delta)

    assert fingerprint(lm, [1]) != BASE


def test_weights_of_other_layers_do_not_enter() -> None:
    lm = pico_language_model("gpt2")

    write_delta(lm, lm.weight_name(2), torch.ones(32, 64))

    assert fingerprint(lm, [1]) == BASE
    assert fingerprint(lm, [1, 2]) != BASE


def test_another_configuration_changes_it() -> None:
    lm = pico_language_model("gpt2")

    lm.model.config.layer_norm_epsilon = 1e-6

    assert fingerprint(lm, [1]) != BASE


def test_how_a_model_was_stored_does_not_change_it() -> None:
    lm = pico_language_model("gpt2")
    config = lm.model.config

    config.use_cache = False
    config.name_or_path = "/somewhere/else"
    config.transformers_version = "5.0.0"
    config.architectures = ["GPT2LMHeadModel"]

    assert fingerprint(lm, [1]) == BASE


def test_another_tokenizer_changes_it() -> None:
    lm = pico_language_model("gpt2")
    tokenizer = pico_tokenizer("byte-level", add_prefix_space=True)

    other = LanguageModel.from_parts("other", lm.model, tokenizer)

    assert fingerprint(other, [1]) != BASE


def test_using_the_tokenizer_does_not_change_it() -> None:
    lm = pico_language_model("gpt2")
    lm.tokenizer.pad_token = "e"

    lm.tokenizer(["a", "b c d"], padding=True, truncation=True, max_length=2)

    assert fingerprint(lm, [1]) == BASE


def test_the_description_holds_fingerprint_and_shapes() -> None:
    description = describe(pico_language_model("gpt2"), [1])

    assert description.fingerprint == BASE
    assert description.shapes == {"transformer.h.1.mlp.c_proj.weight": (32, 64)}


def test_a_layer_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="from 0 to 2"):
        fingerprint(pico_language_model("gpt2"), [3])


def test_half_precision_is_another_model() -> None:
    lm = pico_language_model("gpt2")
    model = AutoModelForCausalLM.from_config(lm.model.config)
    model.load_state_dict(lm.model.state_dict())
    half = LanguageModel.from_parts("half", model.half(), lm.tokenizer)

    assert fingerprint(half, [1]) != BASE
