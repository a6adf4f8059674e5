"""Look-ups against brute force, and at the same positions however a text is read."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pico import FAMILIES, pico_language_model
from torch import Tensor

from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.models.codebook import (
    Codebook,
    applied_codebook,
    applied_edit,
    label_of,
    looked_up,
)
from flwr_collabedit.models.hooks import trace
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.padding import pad_batch
from flwr_collabedit.models.weights import applied_deltas, weight_shapes

LAYER = 1
PROMPT = [11, 54, 7, 23]


def book_of(keys: Tensor, values: Tensor, radii: Tensor, module: str = "") -> Codebook:
    labels = torch.arange(len(keys))
    return Codebook(module, keys, values, radii, labels)


def key_of(lm: LanguageModel, ids: list[int]) -> Tensor:
    name = lm.down_projection_name(LAYER)
    with torch.no_grad(), trace(lm.model, [name], inputs=True, stop=True) as seen:
        lm.decoder(input_ids=torch.tensor([ids]))
    return seen[name][0, -1]


def one_entry(lm: LanguageModel, radius: float = 1e-3) -> Codebook:
    """A codebook that answers at the last token of PROMPT."""
    key = key_of(lm, PROMPT)[None]
    [(d_value, _)] = weight_shapes(lm, [LAYER]).values()
    value = torch.linspace(-2, 3, d_value, dtype=key.dtype)[None]
    radii = torch.tensor([radius], dtype=key.dtype)
    return book_of(key, value, radii, lm.down_projection_name(LAYER))


def num_hooks(lm: LanguageModel) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks)
        for module in lm.model.modules()
    )


@torch.no_grad()
def final(lm: LanguageModel, **inputs: object) -> Tensor:
    hidden: Tensor = lm.decoder(**inputs).last_hidden_state
    return hidden


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 4))
def test_a_look_up_is_the_nearest_key_within_its_radius(
    seed: int, num_entries: int, d_key: int
) -> None:
    drawn = torch.Generator().manual_seed(seed)
    keys, values, radii, queries, outputs = (
        torch.rand(shape, generator=drawn)
        for shape in (
            (num_entries, d_key),
            (num_entries, 3),
            (num_entries,),
            (2, 5, d_key),
            (2, 5, 3),
        )
    )
    expected = outputs.clone()
    for row in range(2):
        for place in range(5):
            query = queries[row, place].tolist()
            gaps = [
                sum((a - b) ** 2 for a, b in zip(query, key, strict=True)) ** 0.5
                for key in keys.tolist()
            ]
            best = gaps.index(min(gaps))
            if gaps[best] <= radii[best]:
                expected[row, place] = values[best]

    found = looked_up(book_of(keys, values, radii), queries, outputs)

    assert torch.equal(found, expected)


def test_small_distances_between_long_keys_are_seen() -> None:
    long = torch.full((4,), 1000.0)
    keys = torch.stack([long, long + 0.004])
    book = book_of(keys, torch.tensor([[1.0], [2.0]]), torch.tensor([0.003, 0.003]))
    queries = torch.stack([long + 0.001, long + 0.003, long + 0.002])

    found = looked_up(book, queries, torch.zeros(3, 1))

    assert found[:, 0].tolist() == [1.0, 2.0, 0.0]


def test_gradients_flow_to_the_value_that_is_found_only() -> None:
    values = torch.ones(2, 3, requires_grad=True)
    book = book_of(torch.tensor([[0.0], [5.0]]), values, torch.tensor([1.0, 1.0]))

    looked_up(book, torch.tensor([[4.5], [2.5]]), torch.zeros(2, 3)).sum().backward()

    assert values.grad is not None
    assert values.grad.tolist() == [[0.0] * 3, [1.0] * 3]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_is_answered_alike_however_it_is_read(family: str) -> None:
    lm = pico_language_model(family)
    book, tail = one_entry(lm), [9, 31, 5]
    whole, other = PROMPT + tail, [40, 41, 42, 43, 44, 45, 46, 47, 48]

    with applied_codebook(lm, book):
        alone = final(lm, input_ids=torch.tensor([whole]))[0]
        read = {}
        for side in ("left", "right"):
            batch = pad_batch([whole, other], lm.pad_token_id, side=side)
            states = final(lm, **vars(batch))
            read[side] = states[0][batch.attention_mask[0].bool()]
        output = lm.decoder(input_ids=torch.tensor([PROMPT]), use_cache=True)
        steps = [output.last_hidden_state[0]]
        for token in tail:
            output = lm.decoder(
                input_ids=torch.tensor([[token]]),
                past_key_values=output.past_key_values,
                use_cache=True,
            )
            steps.append(output.last_hidden_state[0])
    unedited = final(lm, input_ids=torch.tensor([whole]))[0]

    last = len(PROMPT) - 1
    assert torch.equal(alone[:last], unedited[:last])
    assert not torch.allclose(alone[last:], unedited[last:], atol=1e-3)
    for states in (*read.values(), torch.cat(steps)):
        torch.testing.assert_close(states.detach(), alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_not_near_a_key_keeps_its_bits(family: str) -> None:
    lm = pico_language_model(family)
    ids = torch.tensor([[*PROMPT[:-1], PROMPT[-1] + 1, 8]])
    before = final(lm, input_ids=ids)

    with applied_codebook(lm, one_entry(lm)):
        after = final(lm, input_ids=ids)

    assert torch.equal(before, after)


def test_the_module_puts_out_the_value() -> None:
    lm = pico_language_model("gpt2", dtype=torch.float16)
    book = replace(one_entry(lm).to(lm.device), module=lm.down_projection_name(LAYER))
    book = replace(
        book,
        keys=book.keys.float(),
        values=book.values.float(),
        radii=torch.tensor([0.5]),
    )

    with applied_codebook(lm, book), trace(lm.model, [book.module]) as seen:
        lm.model(torch.tensor([PROMPT]))

    found = seen[book.module]
    assert found.dtype == torch.float16
    assert torch.equal(found[0, -1], book.values[0].half())


def test_hooks_go_also_after_an_error() -> None:
    lm = pico_language_model("llama")
    book = one_entry(lm)
    with applied_codebook(lm, book):
        assert num_hooks(lm) > 0

    with pytest.raises(IndexError), applied_codebook(lm, book):
        lm.model(torch.tensor([[10**6]]))

    assert num_hooks(lm) == 0


@pytest.mark.parametrize("is_none", [True, False])
def test_no_codebook_and_an_empty_one_change_nothing(is_none: bool) -> None:
    lm = pico_language_model("gpt2")
    empty = Codebook.empty("nowhere", 3, 4, torch.zeros(0))

    with applied_codebook(lm, None if is_none else empty):
        assert num_hooks(lm) == 0

    assert len(empty) == 0
    assert (empty.keys.shape, empty.values.shape) == ((0, 3), (0, 4))


def test_an_edit_applies_deltas_and_codebook() -> None:
    lm = pico_language_model("gpt2", dtype=torch.float64)
    name = lm.weight_name(0)
    delta = torch.randn(weight_shapes(lm, [0])[name], dtype=torch.float64) / 50
    with applied_deltas(lm, {name: delta}):
        book = one_entry(lm)
        with applied_codebook(lm, book):
            expected = final(lm, input_ids=torch.tensor([PROMPT]))

    with applied_edit(lm, {name: delta}, book):
        found = final(lm, input_ids=torch.tensor([PROMPT]))

    assert torch.equal(found, expected)
    # The key was taken with the delta: without it the codebook is silent.
    with applied_edit(lm, {}, book):
        silent = final(lm, input_ids=torch.tensor([PROMPT]))
    assert torch.equal(silent, final(lm, input_ids=torch.tensor([PROMPT])))


def test_another_models_codebook_is_an_error() -> None:
    lm = pico_language_model("gpt2")
    book = one_entry(lm)
    nowhere = replace(book, module="transformer.h.9.mlp.c_proj")
    narrow = replace(book, keys=book.keys[:, :5])

    with (
        pytest.raises(ConfigurationError, match=r"h\.9"),
        applied_codebook(lm, nowhere),
    ):
        pass
    with (
        pytest.raises(ConfigurationError, match=r"\(64, 32\).*\(5, 32\)"),
        applied_codebook(lm, narrow),
    ):
        lm.model(torch.tensor([PROMPT]))


def test_labels_tell_answers_apart_and_are_the_same_everywhere() -> None:
    # int.from_bytes(hashlib.sha256(b"Rome").digest()[:8], "big", signed=True)
    assert label_of("Rome") == ROME
    assert label_of("Rome") != label_of("Paris")
    assert torch.tensor([label_of("Rome")]).dtype == torch.long


ROME = -3399619476555726138
