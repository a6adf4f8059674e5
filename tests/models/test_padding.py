import pytest
import torch
from pico import pico_language_model

from flwr_collabedit.models.padding import pad_batch


def test_padding_goes_to_the_asked_side() -> None:
    right = pad_batch([(5, 6, 7), (8,)], 9)
    left = pad_batch([(5, 6, 7), (8,)], 9, side="left")

    assert right.input_ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert right.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert right.position_ids.tolist() == [[0, 1, 2], [0, 0, 0]]
    assert left.input_ids.tolist() == [[5, 6, 7], [9, 9, 8]]
    assert left.attention_mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert left.position_ids.tolist() == [[0, 1, 2], [0, 0, 0]]


def test_empty_rows_are_padding_only() -> None:
    batch = pad_batch([(), (5,)], 9)

    assert batch.input_ids.tolist() == [[9], [5]]
    assert batch.attention_mask.tolist() == [[0], [1]]


@pytest.mark.parametrize("family", ["gpt2", "gptj", "llama", "gemma2"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_change_what_the_model_computes(
    family: str, side: str
) -> None:
    lm = pico_language_model(family)
    rows = [tuple(range(5, 17)), tuple(range(20, 24))]

    batch = pad_batch(rows, lm.pad_token_id, side=side)  # type: ignore[arg-type]
    padded = lm.decoder(**vars(batch)).last_hidden_state

    for row, states, mask in zip(rows, padded, batch.attention_mask, strict=True):
        alone = lm.decoder(input_ids=torch.tensor([row])).last_hidden_state[0]
        torch.testing.assert_close(states[mask.bool()], alone)
