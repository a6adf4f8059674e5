import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.errors import ConfigurationError

# hparams/MEMIT/gpt2-xl.json of kmeng01/memit, key by key.
GPT2_XL = {
    "layers": [13, 14, 15, 16, 17],
    "clamp_norm_factor": 0.75,
    "layer_selection": "all",
    "fact_token": "subject_last",
    "v_num_grad_steps": 20,
    "v_lr": 5e-1,
    "v_loss_layer": 47,
    "v_weight_decay": 0.5,
    "kl_factor": 0.0625,
    "mom2_adjustment": True,
    "mom2_update_weight": 20000,
    "rewrite_module_tmp": "transformer.h.{}.mlp.c_proj",
    "layer_module_tmp": "transformer.h.{}",
    "mlp_module_tmp": "transformer.h.{}.mlp",
    "attn_module_tmp": "transformer.h.{}.attn",
    "ln_f_module": "transformer.ln_f",
    "lm_head_module": "transformer.wte",
    "mom2_dataset": "wikipedia",
    "mom2_n_samples": 100000,
    "mom2_dtype": "float32",
}


def test_a_published_file_loads_unchanged(tmp_path: Path):
    path = tmp_path / "gpt2-xl.json"
    path.write_text(json.dumps(GPT2_XL), encoding="utf-8")

    config = MemitConfig.from_published(path)

    assert config == MemitConfig(
        layers=(13, 14, 15, 16, 17),
        clamp_norm_factor=0.75,
        num_gradient_steps=20,
        learning_rate=0.5,
        loss_layer=47,
        weight_decay=0.5,
        kl_factor=0.0625,
        stop_loss=0.05,
        second_moment_weight=20_000,
        second_moment_corpus="wikipedia",
        second_moment_samples=100_000,
        second_moment_dtype="float32",
    )


def test_overrides_win_over_the_published_values():
    config = MemitConfig.from_published(GPT2_XL, layers=(3, 4), stop_loss=0.0)

    assert (config.layers, config.stop_loss, config.weight_decay) == ((3, 4), 0.0, 0.5)


def test_an_unknown_published_key_is_named_with_its_nearest():
    with pytest.raises(ConfigurationError, match=r"'v_lrr'.*'v_lr'"):
        MemitConfig.from_published({**GPT2_XL, "v_lrr": 0.5})


def test_another_fact_token_is_refused():
    with pytest.raises(ConfigurationError, match="subject_first"):
        MemitConfig.from_published({**GPT2_XL, "fact_token": "subject_first"})


def test_a_published_value_out_of_range_is_named():
    with pytest.raises(ConfigurationError, match=r"learning_rate.*-0\.5"):
        MemitConfig.from_published({**GPT2_XL, "v_lr": -0.5})


@pytest.mark.parametrize("layers", [(), (2, 1), (1, 1), (-1, 0)])
def test_layers_must_ascend_from_zero(layers: tuple[int, ...]):
    with pytest.raises(ValidationError):
        MemitConfig(layers=layers)


def test_json_keeps_every_field():
    config = MemitConfig(layers=(1, 2), learning_rate=0.1, loss_layer=3)

    assert MemitConfig.from_json(config.to_json()) == config


def test_an_unknown_name_on_the_wire_is_refused():
    with pytest.raises(ConfigurationError, match="leyers"):
        MemitConfig.from_json('{"leyers": [1]}')
