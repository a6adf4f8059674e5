"""A transformers model together with what an editor has to know about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from flwr_collabedit.errors import ConfigurationError, shorten
from flwr_collabedit.models.architectures import (
    Architecture,
    architecture_for,
    check_modules,
    find_blocks,
)
from flwr_collabedit.models.device_map import execution_device
from flwr_collabedit.models.hooks import returns_tuple
from flwr_collabedit.models.tokens import require_fast


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model of a known family, its tokenizer and its names.

    Build it with :meth:`from_parts` or
    :func:`~flwr_collabedit.models.loading.load_language_model`, which check it.

    Attributes
    ----------
    name : str
        What the model was loaded as; used in messages and cache keys only.
    model : PreTrainedModel
        In evaluation mode, no parameter requires a gradient.
    tokenizer : PreTrainedTokenizerFast
        Fast, since the subject is located by character offsets.
    architecture : Architecture
        Names of the family's modules.
    revision : str
        Commit, tag or branch of a hub model that was asked for; may be empty.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    architecture: Architecture
    revision: str = ""

    @classmethod
    def from_parts(
        cls,
        name: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        revision: str = "",
    ) -> Self:
        """Return the checked model; puts it in evaluation mode, without gradients.

        Raises
        ------
        UnsupportedArchitectureError
            If the family is unknown or lacks a module that its entry names.
        ConfigurationError
            If the tokenizer is not a fast one.
        """
        architecture = architecture_for(model.config)
        check_modules(model, architecture)
        model.train(False).requires_grad_(False)
        return cls(name, model, require_fast(tokenizer), architecture, revision)

    @property
    def blocks(self) -> nn.ModuleList:
        """The decoder blocks, first to last."""
        return find_blocks(self.model, self.architecture)

    @property
    def num_layers(self) -> int:
        """Number of decoder blocks."""
        return len(self.blocks)

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream, ``d_model`` = ``d_value``."""
        return int(self.model.config.hidden_size)

    @property
    def max_length(self) -> int:
        """Number of positions that the model was made for."""
        return int(self.model.config.max_position_embeddings)

    @property
    def device(self) -> torch.device:
        """Where token ids go and what leaves the model is gathered.

        The device of the weights; of a model over several devices, that on which its
        embeddings are computed.
        """
        embeddings: nn.Module = self.model.get_input_embeddings()
        return execution_device(embeddings)

    @property
    def dtype(self) -> torch.dtype:
        """Floating point type of the weights."""
        return self.model.dtype

    @property
    def pad_token_id(self) -> int:
        """The padding token, else the end-of-text token, else 0: all are masked."""
        tokenizer = self.tokenizer
        for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
            if token_id is not None:
                return int(token_id)
        return 0

    @property
    def decoder(self) -> nn.Module:
        """The model without its head; its ``last_hidden_state`` is normalised."""
        decoder: nn.Module = self.model.get_decoder()  # type: ignore[no-untyped-call]
        return decoder

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the next-token logits of normalised final hidden states.

        Parameters
        ----------
        hidden : Tensor
            The decoder's ``last_hidden_state`` or a selection of its positions, shape
            ``(..., d_model)``. Select first: the projection is the costly part.

        Returns
        -------
        Tensor
            Shape ``(..., vocab)``, with the head's bias and the family's soft cap, on
            the device of ``hidden``.
        """
        head = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        logits: Tensor = head(hidden).to(hidden.device)
        if self.architecture.logit_softcapping is not None:
            cap = getattr(self.model.config, self.architecture.logit_softcapping)
            if cap is not None:
                logits = cap * torch.tanh(logits / cap)
        return logits

    def block_name(self, layer: int) -> str:
        """Return a block's name in the model, such as ``transformer.h.3``."""
        return f"{self.architecture.blocks}.{layer}"

    def down_projection_name(self, layer: int) -> str:
        """Return the name of a layer's down projection in the model."""
        return f"{self.block_name(layer)}.{self.architecture.down_projection}"

    def added_projection_name(self, layer: int) -> str:
        """Return a layer's down projection where the block adds its output as it is.

        Raises
        ------
        ConfigurationError
            If the family has norms behind its output matrices.
        """
        self._attention_projection()
        return self.down_projection_name(layer)

    def attention_projection_name(self, layer: int) -> str:
        """Return the name of a layer's attention output matrix in the model.

        Raises
        ------
        ConfigurationError
            If the family has norms behind its output matrices.
        """
        return f"{self.block_name(layer)}.{self._attention_projection()}"

    def _attention_projection(self) -> str:
        name = self.architecture.attention_projection
        if name is None:
            raise ConfigurationError(
                "Expected a family whose attention and MLP add their output matrices' "
                f"outputs to the residual stream as they are; {self.name!r} is a "
                f"{self.architecture.family!r} model, with a norm behind each, so that "
                "a target of PMET or ROME would not be what the block adds. Use MEMIT."
            )
        return name

    def weight_name(self, layer: int) -> str:
        """Return the parameter that an edit of the layer changes."""
        return f"{self.down_projection_name(layer)}.weight"

    def down_projection(self, layer: int) -> nn.Module:
        """Return the module whose input is the layer's key."""
        return self.model.get_submodule(self.down_projection_name(layer))

    @cached_property
    def block_returns_tuple(self) -> bool:
        """Whether blocks return tuples; measured once, with a one-token forward."""
        token = torch.zeros((1, 1), dtype=torch.long, device=self.device)
        with torch.no_grad():
            return returns_tuple(
                self.model,
                self.block_name(0),
                lambda: self.decoder(
                    input_ids=token, attention_mask=torch.ones_like(token)
                ),
            )

    def check_layers(self, layers: Sequence[int]) -> None:
        """Raise unless the layers ascend, without repeats, within the model.

        Raises
        ------
        ConfigurationError
            If there is no layer, or one is repeated, unsorted or out of range.
        """
        if not layers or any(not 0 <= layer < self.num_layers for layer in layers):
            raise ConfigurationError(
                f"Expected layers from 0 to {self.num_layers - 1} for model "
                f"{self.name!r}, at least one; found [{shorten(layers)}]."
            )
        if list(layers) != sorted(set(layers)):
            raise ConfigurationError(
                f"Expected layers in ascending order, each once; found "
                f"[{shorten(layers)}]. Use {sorted(set(layers))}."
            )
