"""A transformers model together with what an editor has to know about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from flwr_collabedit.errors import (
    ConfigurationError,
    UnsupportedArchitectureError,
    nearest,
    shorten,
)
from flwr_collabedit.models.architectures import Architecture, architecture_for
from flwr_collabedit.models.hooks import returns_tuple
from flwr_collabedit.models.tokens import require_fast

EMBEDDED_MODEL = Path(__file__).parents[1] / "assets" / "embedded_model"

_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model of a known family, its tokenizer and its names.

    Build it with :meth:`from_parts` or :func:`load_language_model`, which check it.

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
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    architecture: Architecture

    @classmethod
    def from_parts(
        cls, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
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
        _check_modules(model, architecture)
        model.train(False).requires_grad_(False)
        return cls(name, model, require_fast(tokenizer), architecture)

    @property
    def blocks(self) -> nn.ModuleList:
        """The decoder blocks, first to last."""
        return _blocks(self.model, self.architecture)

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
        """Device of the weights."""
        return self.model.device

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
            Shape ``(..., vocab)``, with the head's bias and the family's soft cap.
        """
        head = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        logits: Tensor = head(hidden)
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

    def attention_projection_name(self, layer: int) -> str:
        """Return the name of a layer's attention output matrix in the model.

        Raises
        ------
        ConfigurationError
            If the family has norms behind its output matrices.
        """
        name = self.architecture.attention_projection
        if name is None:
            raise ConfigurationError(
                "Expected a family whose attention and MLP add their output matrices' "
                f"outputs to the residual stream as they are; {self.name!r} is a "
                f"{self.architecture.family!r} model, with a norm behind each, so that "
                "PMET's target would not be what the block adds. Use MEMIT."
            )
        return f"{self.block_name(layer)}.{name}"

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


def load_language_model(
    name: str, *, dtype: str = "float32", device: str = "cpu"
) -> LanguageModel:
    """Return the shipped model, one from a folder or one from the Hugging Face hub.

    Parameters
    ----------
    name : str
        ``"embedded"`` for the model in this package, or what
        ``AutoModelForCausalLM.from_pretrained`` takes: a folder or a hub id.
    dtype : str
        Type of the weights: float32, float64, bfloat16 or float16.
    device : str
        A torch device, or ``"auto"``: the first accelerator, else the CPU.

    Raises
    ------
    ConfigurationError
        If ``dtype`` or ``device`` is unknown or the model cannot be found.
    UnsupportedArchitectureError
        If its family is unknown; no weights are loaded then.
    """
    if dtype not in _DTYPES:
        raise ConfigurationError(
            f"Expected a dtype; found {dtype!r}. {nearest(dtype, _DTYPES)}"
        )
    target = _device(device)
    source = str(EMBEDDED_MODEL) if name == "embedded" else name
    try:
        architecture_for(AutoConfig.from_pretrained(source))
        model = AutoModelForCausalLM.from_pretrained(source, dtype=_DTYPES[dtype])
        tokenizer = AutoTokenizer.from_pretrained(source)
    except UnsupportedArchitectureError:
        raise
    except (OSError, ValueError) as error:  # transformers' two for an unusable source
        raise ConfigurationError(_not_found(name, source, error)) from error
    nn.Module.to(model, target)  # transformers' own wrapper of it has no usable type
    return LanguageModel.from_parts(name, model, tokenizer)


def _device(device: str) -> torch.device:
    cuda = torch.cuda.is_available()
    if device == "auto":
        return torch.device("cuda" if cuda else "cpu")
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise ConfigurationError(
            f"Expected 'auto', 'cpu' or 'cuda' (or 'cuda:1', ...) as device; found "
            f"{device!r}."
        ) from error
    if target.type == "cuda" and not cuda:
        raise ConfigurationError(
            f"Expected a device of this machine; found {device!r}, but no CUDA device "
            "is available. Use 'auto' or 'cpu'."
        )
    return target


def _not_found(name: str, source: str, error: Exception) -> str:
    folder = Path(source)
    if folder.is_dir():
        tried = f"the folder {folder} was read"
    else:
        tried = f"no folder {folder} exists, and the hub gave nothing of that name"
    reason = str(error).strip().splitlines()[0]
    return (
        f"Expected a loadable model; found {name!r}: {tried} ({reason}). Use "
        "'embedded', the folder of a save_pretrained model, or a hub id that is in the "
        "local cache or reachable (HF_HUB_OFFLINE unset)."
    )


def _check_modules(model: PreTrainedModel, architecture: Architecture) -> None:
    missing = architecture.blocks
    try:
        blocks = _blocks(model, architecture)
        names = (architecture.down_projection, architecture.attention_projection)
        for index, block in enumerate(blocks):
            for name in filter(None, names):
                missing = f"{architecture.blocks}.{index}.{name}"
                block.get_submodule(name)
    except (AttributeError, TypeError) as error:
        raise UnsupportedArchitectureError(
            f"Expected the module {missing!r} in a model of the family "
            f"{architecture.family!r}; {type(model).__name__} has none. Load it as a "
            "causal language model, or correct the family's entry in "
            "flwr_collabedit/models/architectures.json."
        ) from error


def _blocks(model: PreTrainedModel, architecture: Architecture) -> nn.ModuleList:
    blocks = model.get_submodule(architecture.blocks)
    if not isinstance(blocks, nn.ModuleList):
        raise TypeError(f"{architecture.blocks!r} is a {type(blocks).__name__}")
    return blocks
