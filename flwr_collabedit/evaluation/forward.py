"""One forward pass over padded rows, up to the final hidden states."""

from torch import Tensor

from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.padding import PaddedBatch


def final_hidden(lm: LanguageModel, batch: PaddedBatch) -> Tensor:
    """Return the normalised final hidden states, ``(row, position, d_model)``.

    They are on the device of the model, wherever its last block computes.
    """
    moved = batch.to(lm.device)
    hidden: Tensor = lm.decoder(
        input_ids=moved.input_ids,
        attention_mask=moved.attention_mask,
        position_ids=moved.position_ids,
        use_cache=False,
    ).last_hidden_state
    return hidden.to(lm.device)
