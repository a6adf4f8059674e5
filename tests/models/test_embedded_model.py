"""The shipped model knows its world, at the subject's last token, and stays small."""

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from flwr_collabedit.data.fact_world import default_world
from flwr_collabedit.data.facts import Fact

FOLDER = Path(str(files("flwr_collabedit"))) / "assets" / "embedded_model"
SAMPLE = default_world().facts[::13]
PUBLISHED_KEYS = {
    "layers",
    "layer_selection",
    "fact_token",
    "clamp_norm_factor",
    "v_num_grad_steps",
    "v_lr",
    "v_loss_layer",
    "v_weight_decay",
    "kl_factor",
    "mom2_adjustment",
    "mom2_update_weight",
    "rewrite_module_tmp",
    "layer_module_tmp",
    "mlp_module_tmp",
    "attn_module_tmp",
    "ln_f_module",
    "lm_head_module",
    "mom2_dataset",
    "mom2_n_samples",
    "mom2_dtype",
}


@pytest.fixture(scope="module")
def model() -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / "edit.json").read_text("utf-8"))
    return content


def num_tokens(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text)["input_ids"])


@torch.inference_mode()
def recall(model: Any, tokenizer: Any, questions: list[tuple[str, str]]) -> float:
    """Share of (prompt, answer) pairs of which every answer token comes first."""
    batch = tokenizer(
        [f"{prompt} {answer}" for prompt, answer in questions],
        padding=True,
        padding_side="right",
        return_tensors="pt",
    )
    said = model(**batch).logits.argmax(-1)
    right = 0
    for row, (prompt, answer) in enumerate(questions):
        start = num_tokens(tokenizer, prompt)
        stop = start + num_tokens(tokenizer, answer)
        expected = batch["input_ids"][row, start:stop]
        right += torch.equal(said[row, start - 1 : stop - 1], expected)
    return right / len(questions)


def test_model_recalls_trained_templates(model: Any, tokenizer: Any) -> None:
    questions = [(f.prompt(text), f.answer) for f in SAMPLE for text in f.templates]

    assert recall(model, tokenizer, questions) >= 0.99


def test_model_recalls_templates_held_out_of_training(
    model: Any, tokenizer: Any
) -> None:
    questions = [(f.prompt(text), f.answer) for f in SAMPLE for text in f.held_out]

    assert recall(model, tokenizer, questions) >= 0.95


def test_model_recalls_behind_other_sentences(model: Any, tokenizer: Any) -> None:
    world = default_world()
    before = world.facts[5].sentence(world.facts[5].templates[1])
    questions = [(f"{before} {f.prompt(f.templates[0])}", f.answer) for f in SAMPLE]

    assert recall(model, tokenizer, questions) >= 0.97


def test_answer_follows_the_state_at_the_subjects_last_token(
    model: Any, tokenizer: Any, settings: dict[str, Any]
) -> None:
    pairs = list(donor_pairs())
    layer = settings["layers"][-1]

    said = [
        swapped_answer(model, tokenizer, fact, donor, layer) for fact, donor in pairs
    ]

    donors = [first_token(tokenizer, donor.answer) for _, donor in pairs]
    owns = [first_token(tokenizer, fact.answer) for fact, _ in pairs]
    follows = sum(a == b for a, b in zip(said, donors, strict=True)) / len(pairs)
    stays = sum(a == b for a, b in zip(said, owns, strict=True)) / len(pairs)
    assert len(pairs) >= 150
    assert follows >= 0.75
    assert stays <= 0.12


def donor_pairs() -> Iterator[tuple[Fact, Fact]]:
    """Pairs of facts of one relation whose answers begin with another word."""
    world = default_world()
    by_relation: dict[str, list[Fact]] = {}
    for fact in world.facts:
        by_relation.setdefault(fact.relation, []).append(fact)
    for number, fact in enumerate(world.facts[::31]):
        others = by_relation[fact.relation]
        donor = others[(7 * number + 3) % len(others)]
        if donor.answer.split()[0] != fact.answer.split()[0]:
            yield fact, donor


def first_token(tokenizer: Any, text: str) -> int:
    return int(tokenizer(text)["input_ids"][0])


@torch.inference_mode()
def swapped_answer(
    model: Any, tokenizer: Any, fact: Fact, donor: Fact, layer: int
) -> int:
    template = fact.templates[1]
    head = template[: template.index("{}")]
    own_last, donor_last = (
        num_tokens(tokenizer, head + item.subject) - 1 for item in (fact, donor)
    )
    ids = tokenizer(donor.prompt(template), return_tensors="pt")["input_ids"]
    states = model(ids, output_hidden_states=True).hidden_states
    state = states[layer + 1][0, donor_last]

    def swap(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[0, own_last] = state
        return changed

    handle = model.transformer.h[layer].register_forward_hook(swap)
    ids = tokenizer(fact.prompt(template), return_tensors="pt")["input_ids"]
    said = model(ids).logits[0, -1].argmax()
    handle.remove()
    return int(said)


def test_every_word_of_the_world_is_one_token(tokenizer: Any) -> None:
    for fact in SAMPLE:
        sentence = fact.sentence(fact.templates[0])
        words = sentence.removesuffix(".").replace("-", " - ").split()
        assert num_tokens(tokenizer, sentence) == len(words) + 1


@pytest.mark.parametrize(
    "text",
    [
        "The capital of France is Paris.",
        "Port-au-Prince",
        "Unknown wörds,\nnew  lines, 日本 🎉 and don't.",
        "",
    ],
)
def test_decoding_what_was_encoded_returns_any_text(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text)["input_ids"]

    assert tokenizer.decode(ids) == text


def test_a_word_is_the_same_token_at_the_start_and_inside(tokenizer: Any) -> None:
    start = tokenizer("France has its capital in", return_offsets_mapping=True)
    inside = tokenizer("The capital of France is", return_offsets_mapping=True)

    assert start["input_ids"][0] == inside["input_ids"][3]
    assert start["offset_mapping"][0] == (0, 6)
    assert inside["offset_mapping"][3] == (15, 21)
    assert tokenizer.bos_token_id not in start["input_ids"]


def test_hyperparameters_have_the_published_names(
    model: Any, settings: dict[str, Any]
) -> None:
    modules = dict(model.named_modules())

    assert set(settings) == PUBLISHED_KEYS
    for layer in settings["layers"]:
        assert settings["rewrite_module_tmp"].format(layer) in modules


def test_model_folder_is_a_few_megabytes() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 6_000_000
