"""Editing a model whose head is its embeddings, and with or without a first token."""

from pathlib import Path

import pytest
import torch
from editing import CONTEXTS, REQUESTS, assert_same, config, double_model, plain_targets
from pico import BOS, FAMILIES, pico_language_model, pico_tokenizer

from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.editors.memit import MemitEditor, apply
from flwr_collabedit.editors.targets import optimize_targets
from flwr_collabedit.evaluation.scoring import score_cases
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.loading import load_language_model
from flwr_collabedit.models.weights import weight_shapes

IDS = torch.arange(5, 13)[None]


def edit_for_good(lm: LanguageModel) -> None:
    settings = config(num_gradient_steps=3)
    moments = {
        name: torch.eye(d_key, dtype=torch.float64)
        for name, (_, d_key) in weight_shapes(lm, settings.layers).items()
    }
    apply(lm, MemitEditor(lm, settings, CONTEXTS, moments).edit(REQUESTS[:2]))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_edited_model_is_as_tied_as_before(
    family: str, tied: bool, tmp_path: Path
) -> None:
    lm = pico_language_model(family, tie_word_embeddings=tied)
    before = {name: one.clone() for name, one in lm.model.named_parameters()}

    edit_for_good(lm)

    changed = {
        name
        for name, one in lm.model.named_parameters()
        if not torch.equal(one, before[name])
    }
    assert changed == {lm.weight_name(layer) for layer in (0, 1)}
    head, words = lm.model.get_output_embeddings(), lm.model.get_input_embeddings()
    assert (head.weight is words.weight) == tied
    logits = lm.model(IDS).logits
    hidden = lm.decoder(input_ids=IDS).last_hidden_state
    torch.testing.assert_close(lm.logits(hidden), logits)
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    again = load_language_model(str(tmp_path))
    assert torch.equal(again.model(IDS).logits, logits)
    head, words = (
        again.model.get_output_embeddings(),
        again.model.get_input_embeddings(),
    )
    assert (head.weight is words.weight) == tied


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("family", ["gpt2", "gptj", "llama"])
def test_targets_are_those_of_the_published_way_with_and_without_bos(
    family: str, bos: bool
) -> None:
    source = double_model(family)
    kind = "metaspace" if source.tokenizer("a").input_ids[0] == 0 else "byte-level"
    tokenizer = pico_tokenizer(kind, bos=bos)
    lm = LanguageModel.from_parts(family, source.model, tokenizer)
    settings, requests = config(num_gradient_steps=3), REQUESTS[2:4]

    found = optimize_targets(lm, requests, settings, CONTEXTS)

    assert_same(found, plain_targets(lm, settings, requests))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_written_first_token_counts_as_the_tokenizers_own(family: str) -> None:
    source = pico_language_model(family)
    tokenizer = pico_tokenizer(bos=False)
    bare = LanguageModel.from_parts("bare", source.model, tokenizer)
    adding = LanguageModel.from_parts("adding", source.model, pico_tokenizer(bos=True))
    plain = REQUESTS[0]
    marked = plain.model_copy(update={"prompt": BOS + plain.prompt})

    losses = [
        score_cases(lm, [EvaluationCase(request=request)])[0].rewrite.expected.loss
        for lm, request in [(adding, plain), (adding, marked), (bare, marked)]
    ]

    assert losses[0] == losses[1] == losses[2]
    without = score_cases(bare, [EvaluationCase(request=plain)])[0].rewrite
    assert without.expected.loss != losses[0]
