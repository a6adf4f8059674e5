"""The network, and its forward pass with the attention that training blocks.

The parts of a transformers model have no static types: ``Any`` stands for them.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import GPT2Config, GPT2LMHeadModel

from embedded_model.recipe import Recipe


def new_network(recipe: Recipe, vocab_size: int) -> GPT2LMHeadModel:
    """Return an untrained GPT-2 of the recipe's size, without dropout."""
    torch.manual_seed(recipe.seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocab_size,
            n_positions=recipe.num_positions,
            n_embd=recipe.hidden_size,
            n_layer=recipe.num_layers,
            n_head=recipe.num_heads,
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    )


def subject_masks(subject_number: Tensor) -> tuple[Tensor, Tensor]:
    """Return which keys a query may see in the first blocks, and in the later ones.

    A token outside a subject sees none of its tokens in the first blocks and only its
    last one later; the subject's own tokens see each other. Both masks are bool,
    causal, of shape ``(row, 1, query, key)``.
    """
    query, key = subject_number[:, :, None], subject_number[:, None, :]
    foreign = (key > 0) & (key != query)
    is_last = subject_number != pad(subject_number[:, 1:], (0, 1))
    positions = subject_number.shape[1]
    causal = torch.ones(positions, positions, dtype=torch.bool).tril()
    early, late = causal & ~foreign, causal & ~(foreign & ~is_last[:, None, :])
    return early[:, None], late[:, None]


def forward_logits(
    network: GPT2LMHeadModel,
    ids: Tensor,
    masks: tuple[Tensor, Tensor] | None,
    num_early: int,
) -> Tensor:
    """Return the logits ``(row, position, vocab)``.

    With ``masks`` from :func:`subject_masks` the first ``num_early`` blocks attend
    under the first, the others under the second, so that the look-up of a fact has to
    happen at the subject's last token, where MEMIT edits. Without masks this is the
    network's own forward pass.
    """
    decoder: Any = network.transformer
    hidden = decoder.wte(ids) + decoder.wpe.weight[: ids.shape[1]]
    for layer, block in enumerate(decoder.h):
        mask = None if masks is None else masks[layer >= num_early]
        hidden = hidden + _attention(block.attn, block.ln_1(hidden), mask)
        hidden = hidden + block.mlp(block.ln_2(hidden))
    logits: Tensor = network.lm_head(decoder.ln_f(hidden))
    return logits


def _attention(attention: Any, hidden: Tensor, mask: Tensor | None) -> Tensor:
    rows, positions, size = hidden.shape
    query, key, value = (
        part.view(rows, positions, attention.num_heads, -1).transpose(1, 2)
        for part in attention.c_attn(hidden).split(size, dim=2)
    )
    mixed = scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None
    )
    joined: Tensor = attention.c_proj(mixed.transpose(1, 2).reshape(hidden.shape))
    return joined
