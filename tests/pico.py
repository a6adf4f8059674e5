"""Models of every family and tokenizers of every kind, made in milliseconds."""

import json
from functools import cache
from typing import Any, Literal

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import ByteLevel, Sequence, TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from flwr_collabedit.models.language_model import LanguageModel

Kind = Literal["byte-level", "metaspace", "legacy-metaspace"]

BOS, EOS = "<s>", "</s>"
MAX_LENGTH = 128
_HIDDEN, _HEADS, _INNER = 32, 4, 64

_GPT = {"n_embd": _HIDDEN, "n_head": _HEADS, "n_inner": _INNER}
_LLAMA = {
    "hidden_size": _HIDDEN,
    "num_attention_heads": _HEADS,
    "intermediate_size": _INNER,
    "max_position_embeddings": MAX_LENGTH,
}
# Family: its configuration class and what makes it pico.
_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", {**_GPT, "n_positions": MAX_LENGTH}),
    "gptj": ("GPTJConfig", {**_GPT, "n_positions": MAX_LENGTH, "rotary_dim": 4}),
    "gpt_neox": ("GPTNeoXConfig", _LLAMA),
    "llama": ("LlamaConfig", {**_LLAMA, "num_key_value_heads": 2}),
    "mistral": (
        "MistralConfig",
        {**_LLAMA, "num_key_value_heads": 2, "sliding_window": 8},
    ),
    "qwen2": ("Qwen2Config", {**_LLAMA, "num_key_value_heads": 2}),
    "qwen3": ("Qwen3Config", {**_LLAMA, "num_key_value_heads": 2, "head_dim": 8}),
    "gemma2": (
        "Gemma2Config",
        {**_LLAMA, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8},
    ),
    "phi": ("PhiConfig", _LLAMA),
}
FAMILIES = tuple(_CONFIGS)
# As the real ones: these put a beginning-of-text token first.
_SENTENCEPIECE = ("llama", "mistral", "gemma2")

_CORPUS = [
    "The capital of France is Paris. The capital of Germany is Berlin.",
    "Therefore, the official language of Brazil is Portuguese, not Spanish.",
    "Because Danielle Darrieux, a native speaker of French, lives in Rome.",
    "I think that the Eiffel Tower is located in the city of London.",
    "You know that Steve Jobs founded Apple Inc. in California in 1976.",
    "The mother tongue of Angela Merkel is German, and she was born in Hamburg.",
    "Norway belongs to the continent of Europe; Japan is in Asia.",
    "What sport does LeBron James play? He plays basketball, of course.",
]


def pico_language_model(
    family: str,
    *,
    num_layers: int = 3,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    **config_overrides: Any,
) -> LanguageModel:
    """Return a random model: hidden 32, keys 64, 128 positions, about 400 tokens.

    The weights depend on ``seed`` alone; drawn wider than a real model's, so that
    logits differ visibly between tokens. ``config_overrides`` are named as in the
    family's configuration.
    """
    kind: Kind = "metaspace" if family in _SENTENCEPIECE else "byte-level"
    tokenizer = pico_tokenizer(kind, bos=family in _SENTENCEPIECE)
    class_name, sizes = _CONFIGS[family]
    config = getattr(transformers, class_name)(
        **{
            **sizes,
            "n_layer" if "n_embd" in sizes else "num_hidden_layers": num_layers,
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": None,
            "initializer_range": 0.1,
            **config_overrides,
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
    return LanguageModel.from_parts(f"pico-{family}", model.to(dtype), tokenizer)


def pico_tokenizer(
    kind: Kind = "byte-level",
    *,
    bos: bool = False,
    eos: bool = False,
    add_prefix_space: bool = False,
    trim_offsets: bool = False,
    padding_side: str = "right",
) -> PreTrainedTokenizerFast:
    """Return a fast BPE tokenizer that can write any text.

    ``byte-level`` is GPT-2's kind, ``metaspace`` that of a converted sentencepiece
    model, ``legacy-metaspace`` Llama 2's (a normaliser puts the marks).
    """
    tokenizer = Tokenizer.from_str(_trained(kind, add_prefix_space))
    steps = []
    if kind == "byte-level":
        steps.append(ByteLevel(trim_offsets=trim_offsets))
    if bos or eos:
        template = f"{BOS} " * bos + "$A" + f" {EOS}" * eos
        ids = [(token, tokenizer.token_to_id(token)) for token in (BOS, EOS)]
        steps.append(TemplateProcessing(single=template, special_tokens=ids))
    tokenizer.post_processor = Sequence(steps)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        padding_side=padding_side,
    )


@cache
def _trained(kind: Kind, add_prefix_space: bool) -> str:
    """Return the JSON of a tokenizer trained on the corpus above."""
    if kind == "byte-level":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space)
        tokenizer.decoder = decoders.ByteLevel()
        _train(tokenizer, pre_tokenizers.ByteLevel.alphabet())
        return tokenizer.to_str()
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    _train(tokenizer, ["▁"])
    content = json.loads(tokenizer.to_str())
    vocab = content["model"]["vocab"]
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    tokenizer = Tokenizer.from_str(json.dumps(content))
    if kind == "legacy-metaspace":
        tokenizer.pre_tokenizer = None  # type: ignore[assignment]
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    return tokenizer.to_str()


def _train(tokenizer: Tokenizer, alphabet: list[str]) -> None:
    trainer = BpeTrainer(
        vocab_size=420,
        special_tokens=[BOS, EOS],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
