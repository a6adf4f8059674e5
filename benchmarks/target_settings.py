"""Models and requests for ``benchmarks.targets`` and ``benchmarks.gpu``."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPTJConfig,
    PreTrainedTokenizerFast,
)

from flwr_collabedit.data.fact_world import embedded_cases
from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates, generate_contexts
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.loading import EMBEDDED_MODEL, load_language_model

# As long as generated contexts are (10 tokens), and the same in every run.
CONTEXTS = ContextTemplates(
    (
        ("{}",),
        (
            "The first thing that you notice about the old. {}",
            "Therefore the members of the committee have not yet. {}",
            "Because of the weather we had to stay in. {}",
            "I was on my way to the station when. {}",
            "You can see the mountains from the window of. {}",
        ),
    )
)


@dataclass(frozen=True)
class Size:
    """A model to initialise randomly and the layers that MEMIT edits in it."""

    config: GPT2Config | GPTJConfig
    layers: tuple[int, ...]
    dtype: torch.dtype = torch.float32


SIZES = {
    "tiny": Size(GPT2Config(n_layer=4, n_embd=64, n_head=4, vocab_size=3000), (1, 2)),
    "gpt2-small": Size(GPT2Config(n_layer=12, n_embd=768, n_head=12), (6, 7, 8)),
    "gpt2-xl": Size(
        GPT2Config(n_layer=48, n_embd=1600, n_head=25), (13, 14, 15, 16, 17)
    ),
    "gpt-j": Size(GPTJConfig(), (3, 4, 5, 6, 7, 8), torch.bfloat16),
}


@dataclass(frozen=True)
class Setting:
    """What targets are optimised for."""

    lm: LanguageModel
    last_edited_layer: int
    contexts: ContextTemplates
    requests: Sequence[EditRequest]


def embedded_setting(num_edits: int, device: str) -> Setting:
    """Return the shipped model with edits of its own facts."""
    lm = load_language_model("embedded", device=device)
    config = MemitConfig.from_published(EMBEDDED_MODEL / "edit.json")
    requests = [case.request for case in embedded_cases(num_edits)]
    return Setting(lm, config.layers[-1], generate_contexts(lm), requests)


def random_setting(
    size: str, num_edits: int, device: str, *, tokenizer: Path, requests: Path
) -> Setting:
    """Return a randomly initialised model of a published size."""
    facts = _read(requests, num_edits) if requests.exists() else _made_up(num_edits)
    words = (
        AutoTokenizer.from_pretrained(tokenizer)
        if tokenizer.exists()
        else trained_tokenizer(facts)
    )
    lm = random_model(size, words, device)
    return Setting(lm, SIZES[size].layers[-1], CONTEXTS, facts)


def random_model(
    size: str,
    tokenizer: PreTrainedTokenizerFast,
    device: str,
    dtype: torch.dtype = torch.float32,
) -> LanguageModel:
    """Return a model of a published size, its weights drawn on the device."""
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            SIZES[size].config, dtype=dtype
        )
    return LanguageModel.from_parts(size, model, tokenizer)


def _read(path: Path, count: int) -> list[EditRequest]:
    """Return the first requests of a CounterFact file."""
    records = json.loads(path.read_text(encoding="utf-8"))[:count]
    return [
        EditRequest(
            case_id=record["case_id"],
            prompt=record["requested_rewrite"]["prompt"],
            subject=record["requested_rewrite"]["subject"],
            target_new=record["requested_rewrite"]["target_new"]["str"],
        )
        for record in records
    ]


def _made_up(count: int) -> list[EditRequest]:
    return [
        EditRequest(
            case_id=index,
            prompt="The mother tongue of {} is",
            subject=f"Person Number {index}",
            target_new="English",
        )
        for index in range(count)
    ]


def trained_tokenizer(facts: Sequence[EditRequest]) -> PreTrainedTokenizerFast:
    """Return a tokenizer that has the words of the facts and of `CONTEXTS`."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=2000, special_tokens=["<|endoftext|>"])
    text = [f"{fact.prompt} {fact.subject} {fact.target_new}" for fact in facts]
    core.train_from_iterator([*text, *CONTEXTS.templates], trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core, eos_token="<|endoftext|>"
    )
