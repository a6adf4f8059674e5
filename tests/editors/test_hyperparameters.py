"""What is published is shipped as it is, and found for the models it is for."""

import json
from pathlib import Path
from typing import Any

import pytest
from pico import pico_language_model

from flwr_collabedit.editors import hyperparameters
from flwr_collabedit.editors.alpha_edit_config import AlphaEditConfig
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.hyperparameters import hyperparameters_for
from flwr_collabedit.editors.pmet_config import PmetConfig
from flwr_collabedit.editors.published_sets import (
    HyperparameterSet,
    ModelShape,
    published_sets,
)
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.models.architectures import known_architectures
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.loading import EMBEDDED_MODEL, load_language_model

# KNOWLEDGE_EDITING.md 1.10, row by row: layers, clamp, steps, lr, loss layer, weight
# decay, lambda, KL factor, documents; then layers, width and key width of the model,
# from its config.json.
L48 = (4, 5, 6, 7, 8)
GPT_J = (3, 4, 5, 6, 7, 8)
NEOX = (6, 7, 8, 9, 10)
TABLE: dict[tuple[str, str], tuple[Any, ...]] = {
    ("gpt2-xl", "memit"): (
        *((13, 14, 15, 16, 17), 0.75, 20, 0.5, 47, 0.5, 20000, 0.0625, 100_000),
        *("gpt2", 48, 1600, 6400),
    ),
    ("gpt-j-6b", "memit"): (
        *(GPT_J, 0.75, 25, 0.5, 27, 0.5, 15000, 0.0625, 100_000),
        *("gptj", 28, 4096, 16384),
    ),
    ("gpt-neox-20b", "memit"): (
        *(NEOX, 0.8, 20, 0.5, 43, 0.5, 6000, 0.0625, 50_000),
        *("gpt_neox", 44, 6144, 24576),
    ),
    ("llama2-7b", "memit"): (
        *(L48, 4, 25, 0.5, 31, 1e-3, 15000, 0.0625, 100_000),
        *("llama", 32, 4096, 11008),
    ),
    ("llama3-8b", "memit"): (
        *(L48, 0.75, 25, 0.1, 31, 0.5, 15000, 0.0625, 100_000),
        *("llama", 32, 4096, 14336),
    ),
    ("llama3.2-3b", "memit"): (
        *(L48, 4, 25, 0.5, 27, 1e-3, 15000, 0.0625, 100_000),
        *("llama", 28, 3072, 8192),
    ),
    ("mistral-7b", "memit"): (
        *(L48, 4, 25, 0.5, 31, 1e-3, 15000, 0.0625, 100_000),
        *("mistral", 32, 4096, 14336),
    ),
    ("qwen2.5-7b", "memit"): (
        *(L48, 4, 25, 0.5, 27, 1e-3, 15000, 0.0625, 100_000),
        *("qwen2", 28, 3584, 18944),
    ),
    ("gpt-j-6b", "pmet"): (
        *(GPT_J, 0.75, 30, 0.2, 27, 0.5, 6000, 1, 100_000),
        *("gptj", 28, 4096, 16384),
    ),
    ("gpt-neox-20b", "pmet"): (
        *(NEOX, 0.8, 30, 0.5, 43, 0.5, 15000, 0.8, 50_000),
        *("gpt_neox", 44, 6144, 24576),
    ),
    ("llama2-7b", "pmet"): (
        *(L48, 1, 20, 0.5, 31, 0.5, 15000, 0.0625, 100_000),
        *("llama", 32, 4096, 11008),
    ),
}
# AlphaEdit's rows are MEMIT's of the same model, but without lambda and with these.
THRESHOLD_AND_L2 = {
    "gpt2-xl": (0.02, 10),
    "gpt-j-6b": (0.02, 10),
    "llama3-8b": (0.02, 10),
    "qwen2.5-7b": (0.02, 1),
}
for _name in THRESHOLD_AND_L2:
    _row = TABLE[_name, "memit"]
    TABLE[_name, "alphaedit"] = (*_row[:6], None, *_row[7:])
KINDS = {"memit": MemitConfig, "pmet": PmetConfig, "alphaedit": AlphaEditConfig}
# The sets of the other editors have their tests beside their editors'.
SETS = [one for one in published_sets() if one.editor in KINDS]
SHIPPED = {(one.name, one.editor): one for one in SETS}


def test_the_shipped_sets_are_the_published_ones() -> None:
    embedded = {("embedded", editor) for editor in KINDS}

    assert set(SHIPPED) == set(TABLE) | embedded
    assert len(SETS) == len(SHIPPED)


@pytest.mark.parametrize(("name", "editor"), TABLE)
def test_a_shipped_set_has_the_published_values(name: str, editor: str) -> None:
    shipped = SHIPPED[name, editor]
    expected = TABLE[name, editor]

    found = KINDS[editor].from_published(shipped.hyperparameters)

    assert (
        *(found.layers, found.clamp_norm_factor, found.num_gradient_steps),
        *(found.learning_rate, found.loss_layer, found.weight_decay),
        *(found.second_moment_weight, found.kl_factor, found.second_moment_samples),
        *(shipped.model.model_type, shipped.model.num_layers),
        *(shipped.model.hidden_size, shipped.model.d_key),
    ) == expected
    assert found.second_moment_corpus == "wikipedia"
    assert found.second_moment_dtype == "float32"
    if isinstance(found, PmetConfig):
        assert found.nll_factor == 1
    if isinstance(found, AlphaEditConfig):
        assert (found.nullspace_threshold, found.l2) == THRESHOLD_AND_L2[name]
    # Nothing but what the table has: a key more would be somebody's invention.
    assert len(shipped.hyperparameters) == (12 if editor == "memit" else 13)


@pytest.mark.parametrize(("name", "editor"), SHIPPED)
def test_a_shipped_set_fits_its_own_model(name: str, editor: str) -> None:
    shipped = SHIPPED[name, editor]
    found = KINDS[editor].from_published(shipped.hyperparameters)

    assert shipped.model.model_type in known_architectures()
    assert found.layers[-1] < shipped.model.num_layers - 1
    assert found.loss_layer == shipped.model.num_layers - 1
    assert len(shipped.source) > 20


@pytest.mark.parametrize("editor", KINDS)
def test_a_model_has_one_set_of_an_editor_at_most(editor: str) -> None:
    shapes = [one.model for one in published_sets() if one.editor == editor]

    assert len(set(shapes)) == len(shapes)


@pytest.mark.parametrize(
    ("editor", "file"),
    [
        ("memit", "edit.json"),
        ("pmet", "edit_pmet.json"),
        ("alphaedit", "edit_alphaedit.json"),
    ],
)
def test_the_embedded_model_has_its_own(editor: Any, file: str) -> None:
    lm = load_language_model("embedded")

    found = hyperparameters_for(lm, editor=editor)

    assert found == KINDS[editor].from_published(EMBEDDED_MODEL / file)
    assert found == hyperparameters_for(lm, "embedded", editor=editor)


@pytest.fixture
def pico_set(monkeypatch: pytest.MonkeyPatch) -> HyperparameterSet:
    """A set published for the shape of a pico Llama, beside one for a wider model."""
    shape = ModelShape(model_type="llama", hidden_size=32, num_layers=3, d_key=64)
    values = {"layers": [0, 1], "v_loss_layer": 2, "mom2_update_weight": 7}
    one = HyperparameterSet(
        name="pico",
        editor="memit",
        source="this test",
        model=shape,
        hyperparameters=values,
    )
    near = [
        shape.model_copy(update=change)
        for change in (
            {"model_type": "mistral"},
            {"hidden_size": 64},
            {"num_layers": 4},
            {"d_key": 128},
        )
    ]
    others = [
        one.model_copy(update={"model": other, "name": f"near-{index}"})
        for index, other in enumerate(near)
    ]
    monkeypatch.setattr(hyperparameters, "published_sets", lambda: (*others, one))
    return one


def test_a_models_set_is_found_by_its_shape(pico_set: HyperparameterSet) -> None:
    lm = pico_language_model("llama", seed=5)  # somebody's fine-tune

    found = hyperparameters_for(lm)

    assert found == MemitConfig(layers=(0, 1), loss_layer=2, second_moment_weight=7)


@pytest.mark.parametrize(
    "change", [{"num_layers": 5}, {"intermediate_size": 96}, {"hidden_size": 48}]
)
def test_a_model_of_another_shape_has_none(
    pico_set: HyperparameterSet, change: dict[str, Any]
) -> None:
    lm = pico_language_model("llama", **change)

    with pytest.raises(ConfigurationError, match=r"pico.*collabedit locate MODEL"):
        hyperparameters_for(lm)


def test_another_editor_has_none_of_memits(pico_set: HyperparameterSet) -> None:
    with pytest.raises(ConfigurationError, match="PMET hyperparameters are published"):
        hyperparameters_for(pico_language_model("llama"), editor="pmet")


def test_overrides_win(pico_set: HyperparameterSet) -> None:
    lm = pico_language_model("llama")

    found = hyperparameters_for(lm, "pico", layers=(1,), learning_rate=0.25)

    assert (found.layers, found.learning_rate) == ((1,), 0.25)
    assert found.second_moment_weight == 7
    with pytest.raises(ConfigurationError, match=r"set 'pico'.*learning_rate"):
        hyperparameters_for(lm, "pico", learning_rate=-1)


CONFIG = MemitConfig(layers=(0, 1), learning_rate=0.25, loss_layer=2)


@pytest.mark.parametrize(
    "content",
    [
        CONFIG.to_json(),
        json.dumps({"layers": [0, 1], "learning_rate": 0.25, "loss_layer": 2}),
        json.dumps({"layers": [0, 1], "v_lr": 0.25, "v_loss_layer": 2}),
        json.dumps(
            {
                "name": "mine",
                "editor": "memit",
                "source": "collabedit locate",
                "hyperparameters": {"layers": [0, 1], "v_lr": 0.25, "v_loss_layer": 2},
            }
        ),
    ],
    ids=["written", "our names", "published names", "a shipped set's form"],
)
def test_a_file_is_read_in_each_form(content: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(content, encoding="utf-8")

    lm = pico_language_model("llama")
    found = hyperparameters_for(lm, path)

    assert found == CONFIG
    changed = hyperparameters_for(lm, str(path), learning_rate=0.5)
    assert changed == CONFIG.model_copy(update={"learning_rate": 0.5})


def test_pmets_own_file_makes_its_configuration(tmp_path: Path) -> None:
    path = tmp_path / "pmet.json"
    config = PmetConfig(layers=(0,), nll_factor=2)
    path.write_text(config.to_json(), encoding="utf-8")
    lm = pico_language_model("llama")

    assert hyperparameters_for(lm, path, editor="pmet") == config
    with pytest.raises(ConfigurationError, match=r"MEMIT .*pmet\.json.*of 'pmet'"):
        hyperparameters_for(lm, path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[1]", "JSON object.*found a list"),
        ('{"v_lrr": 1, "layers": [0]}', r"'v_lrr' in .*mine\.json.*'v_lr'"),
        ('{"layers": [0], "learning_rate": "fast"}', r"mine\.json.*learning_rate"),
        ('{"layers": [0, 7]}', "layers from 0 to 2"),
        ('{"layers": [0, 2]}', "below 2"),
        ('{"layers": [0], "v_loss_layer": 1}', "Expected loss_layer 2"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(
    content: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.json"
    path.write_text(content, encoding="utf-8")

    with pytest.raises(ConfigurationError, match=message):
        hyperparameters_for(pico_language_model("llama"), path)


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"'gpt2-x1'.*'gpt2-xl'"):
        hyperparameters_for(pico_language_model("gpt2"), "gpt2-x1")


def test_a_set_of_another_model_is_refused() -> None:
    lm: LanguageModel = pico_language_model("gpt2")

    with pytest.raises(ConfigurationError, match=r"layers from 0 to 2.*\[13, 14"):
        hyperparameters_for(lm, "gpt2-xl")
