import pytest
from pico import FAMILIES
from transformers import BertConfig, GPT2Config

from flwr_collabedit.errors import UnsupportedArchitectureError
from flwr_collabedit.models.architectures import (
    architecture_for,
    known_architectures,
)


def test_every_known_family_has_a_pico_model() -> None:
    assert set(known_architectures()) == set(FAMILIES)


def test_the_entry_is_found_by_model_type() -> None:
    architecture = architecture_for(GPT2Config())

    assert architecture.family == "gpt2"
    assert architecture.blocks == "transformer.h"
    assert architecture.down_projection == "mlp.c_proj"
    assert architecture.logit_softcapping is None


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnsupportedArchitectureError) as refusal:
        architecture_for(BertConfig())

    assert "'bert'" in str(refusal.value)
    assert all(family in str(refusal.value) for family in FAMILIES)
