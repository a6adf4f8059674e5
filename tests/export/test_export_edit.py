"""Issue 6: every family, edited by two clients, exported, reloaded, logits equal."""

import json

import pytest
import torch
from editing_together import FACTS, PROMPT, Edited, edit_together, logits, saved_base
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D

from flwr_collabedit.errors import ConfigurationError, EditFileError
from flwr_collabedit.export.edit_folder import load_edit
from flwr_collabedit.export.export_edit import export_edit
from flwr_collabedit.export.written import Form
from flwr_collabedit.models.loading import load_language_model
from flwr_collabedit.models.weights import applied_deltas

# Measured: 9e-7 at most, of logits that the edits move by 0.3 at least.
ROUNDING = 5e-6


def export(edited: Edited, out, form, **options):
    return export_edit(
        edited.lm, edited.deltas, edited.card, out, Form(form), **options
    )


def edited_logits(edited: Edited):
    with applied_deltas(edited.lm, edited.deltas):
        return logits(edited.lm.model)


def test_a_model_reloaded_has_the_edited_models_weights_and_logits(edited, tmp_path):
    layers = export(edited, tmp_path / "out", "model")

    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert (edited_logits(edited) - logits(edited.lm.model)).abs().max() > 0.1
    assert (logits(found) - edited_logits(edited)).abs().max() < ROUNDING
    with applied_deltas(edited.lm, edited.deltas):
        expected = edited.lm.model.state_dict()
        for name, weight in found.state_dict().items():
            assert torch.equal(weight, expected[name]), name
    assert all(0 < layer.relative_error < 1e-6 for layer in layers)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = PROMPT.format("France")
    assert tokenizer(text).input_ids == edited.lm.tokenizer(text).input_ids


def test_a_delta_file_reloaded_gives_the_edited_models_logits(edited, tmp_path):
    export(edited, tmp_path / "out", "delta")

    deltas, card = load_edit(tmp_path / "out")
    base = load_language_model(str(edited.base))
    with applied_deltas(base, deltas):
        assert (logits(base.model) - edited_logits(edited)).abs().max() < ROUNDING
    assert card == edited.card


def test_an_adapter_reloaded_gives_the_edited_models_logits(edited, tmp_path, recwarn):
    layers = export(edited, tmp_path / "out", "lora")

    base = AutoModelForCausalLM.from_pretrained(edited.base)
    found = PeftModel.from_pretrained(base, tmp_path / "out")
    assert (logits(found) - edited_logits(edited)).abs().max() < ROUNDING
    merged = found.merge_and_unload()
    assert (logits(merged) - edited_logits(edited)).abs().max() < ROUNDING
    # Each of two parties has one fact; the adapter has nothing else.
    assert [layer.rank for layer in layers] == [2, 2]
    assert all(0 < layer.relative_error < 1e-7 for layer in layers)
    with safe_open(tmp_path / "out" / "adapter_model.safetensors", "pt") as file:
        assert len(file.keys()) == 2 * len(edited.deltas)
    assert not [one for one in recwarn if "fan_in_fan_out" in str(one.message)]


def test_the_model_in_memory_keeps_its_bits(edited, tmp_path):
    before = {k: v.clone() for k, v in edited.lm.model.state_dict().items()}

    for form in Form:
        export(edited, tmp_path / form, form)

    after = edited.lm.model.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert not any(p.requires_grad for p in edited.lm.model.parameters())


def test_no_text_that_is_exported_tells_a_fact(edited, tmp_path):
    words = {"capital", *(word for own in FACTS for fact in own for word in fact)}

    for form in Form:
        export(edited, tmp_path / form, form)

    texts = [
        file.read_text()
        for name in ("README.md", "*config.json")
        for file in tmp_path.rglob(name)
    ]
    assert len(texts) == 3 + 3 + 1  # cards; config, generation, tokenizer; adapter
    header = (tmp_path / "delta" / "delta.safetensors").read_bytes()[:20_000]
    texts.append(header.decode("latin1"))
    assert not [(word, text) for word in words for text in texts if word in text]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_tied_embedding_is_written_once_and_tied_again(family, tmp_path):
    lm = saved_base(family, tmp_path / "base", torch.float32, tie_word_embeddings=True)
    edit = Edited(lm, *edit_together(lm, tmp_path), tmp_path / "base")

    export(edit, tmp_path / "out", "model", dtype=torch.bfloat16)

    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert found.get_output_embeddings().weight is found.get_input_embeddings().weight
    assert found.dtype == torch.bfloat16


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    folder = tmp_path_factory.mktemp("half")
    saved_base("llama", folder / "base", torch.bfloat16)
    lm = load_language_model(str(folder / "base"), dtype="bfloat16")
    return Edited(lm, *edit_together(lm, folder), folder / "base")


def test_a_half_precision_model_is_what_its_deltas_make_of_it(half, tmp_path):
    layers = export(half, tmp_path / "out", "model")

    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert found.dtype == torch.bfloat16
    assert torch.equal(logits(found), edited_logits(half))
    # bfloat16 has 8 bits: half of the last one is 2^-9 of a weight.
    for layer in layers:
        assert 0 < layer.relative_error < 2**-8 / layer.relative_norm


def test_an_adapter_for_a_half_precision_model_states_its_error(half, tmp_path):
    layers = export(half, tmp_path / "wide", "lora")
    narrow = export(half, tmp_path / "narrow", "lora", dtype=torch.bfloat16)

    assert all(layer.relative_error < 1e-7 for layer in layers)
    assert all(2**-12 < layer.relative_error < 2**-8 for layer in narrow)
    base = AutoModelForCausalLM.from_pretrained(half.base)
    found = logits(PeftModel.from_pretrained(base, tmp_path / "wide"))
    # The adapter's product is rounded once, the written weights' each.
    assert (found - edited_logits(half)).abs().max() < 0.1
    assert (found - logits(half.lm.model)).abs().max() > 0.3


def test_a_model_in_more_bits_than_its_base_keeps_the_deltas_bits(half, tmp_path):
    layers = export(half, tmp_path / "out", "model", dtype=torch.float32)

    assert all(layer.relative_error < 1e-6 for layer in layers)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.float32


def test_a_layer_that_is_not_changed_has_no_adapter(edited_gpt2, tmp_path):
    first, second = edited_gpt2.deltas
    deltas = {**edited_gpt2.deltas, first: torch.zeros_like(edited_gpt2.deltas[first])}
    edit = Edited(edited_gpt2.lm, deltas, edited_gpt2.card, edited_gpt2.base)

    layers = export(edit, tmp_path / "out", "lora")

    assert [layer.rank for layer in layers] == [0, 2]
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["target_modules"] == [second.removesuffix(".weight")]
    base = AutoModelForCausalLM.from_pretrained(edit.base)
    found = PeftModel.from_pretrained(base, tmp_path / "out")
    assert (logits(found) - edited_logits(edit)).abs().max() < ROUNDING


def test_layers_of_different_ranks_are_scaled_by_one(edited_gpt2, tmp_path):
    first, second = edited_gpt2.deltas
    generator = torch.Generator().manual_seed(0)
    deltas = {
        first: edited_gpt2.deltas[first],
        second: 0.05 * torch.randn(32, 64, generator=generator, dtype=torch.float64),
    }
    edit = Edited(edited_gpt2.lm, deltas, edited_gpt2.card, edited_gpt2.base)

    layers = export(edit, tmp_path / "out", "lora")

    assert [layer.rank for layer in layers] == [2, 32]
    base = AutoModelForCausalLM.from_pretrained(edit.base)
    found = PeftModel.from_pretrained(base, tmp_path / "out")
    assert (logits(found) - edited_logits(edit)).abs().max() < ROUNDING


def test_a_cut_adapter_states_what_it_left_out(edited_gpt2, tmp_path):
    layers = export(edited_gpt2, tmp_path / "out", "lora", max_rank=1)

    card = (tmp_path / "out" / "README.md").read_text()
    for layer, delta in zip(layers, edited_gpt2.deltas.values(), strict=True):
        singular = torch.linalg.svdvals(delta)
        left_out = float(singular[1:].norm() / singular.norm())
        assert layer.rank == 1
        assert layer.relative_error == pytest.approx(left_out, rel=1e-4)
        assert f"| 1 | {left_out:.1e} |" in card


def test_a_square_weight_is_written_the_right_way_round(tmp_path):
    lm = saved_base("gpt2", tmp_path / "base", torch.float32, n_inner=32)
    edit = Edited(lm, *edit_together(lm, tmp_path), tmp_path / "base")
    assert isinstance(lm.down_projection(0), Conv1D)

    export(edit, tmp_path / "out", "model")

    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert (logits(found) - edited_logits(edit)).abs().max() < ROUNDING


@pytest.mark.parametrize("form", Form)
def test_another_base_model_is_refused(form, edited_gpt2, tmp_path):
    lm = saved_base("gpt2", tmp_path / "other", torch.float32, seed=1)
    edit = Edited(lm, edited_gpt2.deltas, edited_gpt2.card, edited_gpt2.base)

    with pytest.raises(ConfigurationError, match="unedited model"):
        export(edit, tmp_path / "out", form)

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda name, delta: {"other.weight": delta}, "'other.weight'"),
        (lambda name, delta: {name: delta.T}, "found others"),
        (lambda name, delta: {}, "found others"),
        (lambda name, delta: {name: delta * torch.nan}, "NaN"),
    ],
    ids=["name", "shape", "nothing", "nan"],
)
def test_deltas_of_other_weights_are_refused(wrong, said, edited_gpt2, tmp_path):
    name, delta = next(iter(edited_gpt2.deltas.items()))
    edit = Edited(
        edited_gpt2.lm, wrong(name, delta), edited_gpt2.card, edited_gpt2.base
    )

    with pytest.raises(EditFileError, match=said):
        export(edit, tmp_path / "out", "lora")


@pytest.mark.parametrize(
    ("form", "options", "said"),
    [
        ("model", {"max_rank": 2}, "'lora' only"),
        ("lora", {"max_rank": 0}, "at least 1"),
        ("delta", {"dtype": torch.float32}, "always float64; found 'float32'"),
    ],
)
def test_options_of_another_form_are_refused(
    form, options, said, edited_gpt2, tmp_path
):
    with pytest.raises(ConfigurationError, match=said):
        export(edited_gpt2, tmp_path / "out", form, **options)


def test_an_edit_of_nothing_has_no_adapter(edited_gpt2, tmp_path):
    deltas = {k: torch.zeros_like(v) for k, v in edited_gpt2.deltas.items()}
    edit = Edited(edited_gpt2.lm, deltas, edited_gpt2.card, edited_gpt2.base)

    with pytest.raises(ConfigurationError, match="changes a weight"):
        export(edit, tmp_path / "out", "lora")


def test_an_adapter_without_peft_names_the_extra(edited_gpt2, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)

    with pytest.raises(ConfigurationError, match=r"flwr-collabedit\[export\]"):
        export(edited_gpt2, tmp_path / "out", "lora")

    assert list(tmp_path.iterdir()) == []
