"""The embedded model's tokenizer: one token for every word of its world."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from flwr_collabedit.data.facts import FactWorld

END_OF_TEXT = "<|endoftext|>"


def build_tokenizer(world: FactWorld, *, max_length: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer whose vocabulary holds the world's words.

    Words are looked up whole before any merge (``ignore_merges``), so there are no
    merges and no fragments in the vocabulary; other text falls back to single bytes.
    A word at the start of a text is the same token as inside a sentence. Like GPT-2's,
    it adds no special token by itself.
    """
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=True)
    words = sorted(
        {word for text in _texts(world) for word, _ in splitter.pre_tokenize_str(text)}
    )
    names = dict.fromkeys([END_OF_TEXT, *sorted(splitter.alphabet()), *words])
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteLevel(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=max_length,
    )


def _texts(world: FactWorld) -> Iterable[str]:
    for fact in world.facts:
        for template in (*fact.templates, *fact.held_out):
            yield fact.sentence(template)
