import json
from pathlib import Path

import pytest

from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.kinds import read_config
from flwr_collabedit.editors.methods import METHODS
from flwr_collabedit.editors.pmet_config import PmetConfig
from flwr_collabedit.errors import ConfigurationError

# hparams/PMET/EleutherAI_gpt-neox-20b.json of xpq-tech/PMET, key by key.
GPT_NEOX = {
    "layers": [6, 7, 8, 9, 10],
    "clamp_norm_factor": 0.8,
    "layer_selection": "all",
    "fact_token": "subject_last",
    "v_num_grad_steps": 30,
    "v_lr": 5e-1,
    "v_loss_layer": 43,
    "v_weight_decay": 0.5,
    "kl_factor": 0.8,
    "rewrite_module_tmp": "gpt_neox.layers.{}.mlp.dense_4h_to_h",
    "rewrite_module_tmps": ["gpt_neox.layers.{}.mlp.dense_4h_to_h"],
    "layer_module_tmp": "gpt_neox.layers.{}",
    "mlp_module_tmp": "gpt_neox.layers.{}.mlp.dense_4h_to_h",
    "attn_module_tmp": "gpt_neox.layers.{}.attention.dense",
    "ln_f_module": "gpt_neox.final_layer_norm",
    "lm_head_module": "embed_out",
    "mom2_adjustment": True,
    "mom2_update_weight": 15000,
    "mom2_dataset": "wikipedia",
    "mom2_n_samples": 50000,
    "mom2_dtype": "float32",
    "nll_loss_factor": 2,
}


def test_a_published_file_loads_unchanged(tmp_path: Path):
    path = tmp_path / "gpt-neox.json"
    path.write_text(json.dumps(GPT_NEOX), encoding="utf-8")

    config = PmetConfig.from_published(path)

    assert config == PmetConfig(
        layers=(6, 7, 8, 9, 10),
        clamp_norm_factor=0.8,
        num_gradient_steps=30,
        learning_rate=0.5,
        loss_layer=43,
        weight_decay=0.5,
        kl_factor=0.8,
        second_moment_weight=15_000,
        second_moment_samples=50_000,
        nll_factor=2.0,
        answered_nll_factor=0.1,
        stop_divergence=0.01,
        stop_loss=0.05,
    )


def test_memit_refuses_pmets_file_by_name():
    with pytest.raises(ConfigurationError, match="MEMIT hyperparameter 'rewrite_modul"):
        MemitConfig.from_published(GPT_NEOX)
    with pytest.raises(ConfigurationError, match="PMET hyperparameter 'v_lrr'"):
        PmetConfig.from_published({**GPT_NEOX, "v_lrr": 0.5})


@pytest.mark.parametrize("kind", [MemitConfig, PmetConfig])
def test_json_gives_back_the_editors_own_configuration(kind: type[MemitConfig]):
    config = kind(layers=(1, 2), learning_rate=0.1)

    found = read_config(config.to_json())

    assert type(found) is kind
    assert found == config
    assert METHODS[found.editor].config is kind


def test_json_that_names_no_editor_is_memits():
    assert read_config('{"layers": [1]}') == MemitConfig(layers=(1,))


def test_another_editors_json_is_refused():
    with pytest.raises(ConfigurationError, match="editor"):
        MemitConfig.from_json(PmetConfig(layers=(1,)).to_json())
    with pytest.raises(ConfigurationError, match="Unknown editor 'roma'"):
        read_config('{"editor": "roma", "layers": [1]}')
