import json
from pathlib import Path

import pytest

from flwr_collabedit.editors.alpha_edit_config import AlphaEditConfig
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.kinds import read_config
from flwr_collabedit.errors import ConfigurationError

# hparams/AlphaEdit/Llama3-8B.json of jianghoucheng/AlphaEdit, key by key.
LLAMA3 = {
    "model_name": "Llama3-8B",
    "layers": [4, 5, 6, 7, 8],
    "clamp_norm_factor": 0.75,
    "layer_selection": "all",
    "fact_token": "subject_last",
    "v_num_grad_steps": 25,
    "v_lr": 1e-1,
    "v_loss_layer": 31,
    "v_weight_decay": 0.5,
    "kl_factor": 0.0625,
    "mom2_adjustment": True,
    "mom2_update_weight": 15000,
    "rewrite_module_tmp": "model.layers.{}.mlp.down_proj",
    "layer_module_tmp": "model.layers.{}",
    "mlp_module_tmp": "model.layers.{}.mlp",
    "attn_module_tmp": "model.layers.{}.self_attn",
    "ln_f_module": "model.norm",
    "lm_head_module": "lm_head",
    "mom2_dataset": "wikipedia",
    "mom2_n_samples": 100000,
    "mom2_dtype": "float32",
    "nullspace_threshold": 3e-2,
    "L2": 11,
}


def test_a_published_file_loads_unchanged(tmp_path: Path):
    path = tmp_path / "Llama3-8B.json"
    path.write_text(json.dumps(LLAMA3), encoding="utf-8")

    config = AlphaEditConfig.from_published(path)

    assert config == AlphaEditConfig(
        layers=(4, 5, 6, 7, 8),
        num_gradient_steps=25,
        learning_rate=0.1,
        loss_layer=31,
        nullspace_threshold=0.03,
        l2=11.0,
    )
    assert read_config(config.to_json()) == config


def test_the_defaults_are_the_published_ones():
    config = AlphaEditConfig(layers=(1,))

    assert (config.nullspace_threshold, config.l2) == (0.02, 10.0)


def test_memits_weight_which_nothing_would_read_is_refused():
    with pytest.raises(ConfigurationError, match=r"second_moment_weight: .*found 7"):
        AlphaEditConfig.from_published(LLAMA3, second_moment_weight=7.0)
    with pytest.raises(ConfigurationError, match="MEMIT hyperparameter 'nullspace_th"):
        MemitConfig.from_published(LLAMA3)


@pytest.mark.parametrize("name", ["nullspace_threshold", "l2"])
def test_values_that_are_not_positive_are_refused(name: str):
    with pytest.raises(ConfigurationError, match=f"{name}: .*greater than 0, found 0"):
        AlphaEditConfig.from_published(LLAMA3, **{name: 0.0})
