"""Second moments of the edited layers' keys, estimated from text and kept on disk.

Meng et al. "Mass-Editing Memory in a Transformer", ICLR 2023, section 4.1: ``C0`` is
the uncentred ``E[k k^T]`` over the tokens of a sample of documents. It enters every
solve, so all parties of a federated edit must use the very same file.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from flwr_collabedit.algebra.second_moment import SecondMoment
from flwr_collabedit.editors.second_moment_file import (
    SecondMomentSource,
    load_second_moment,
    save_second_moment,
)
from flwr_collabedit.errors import SecondMomentError
from flwr_collabedit.models.fingerprint import fingerprint
from flwr_collabedit.models.hooks import trace
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.padding import pad_batch
from flwr_collabedit.models.tokens import tokenize
from flwr_collabedit.models.weights import weight_shapes


def estimate_second_moments(
    lm: LanguageModel,
    layers: Sequence[int],
    texts: Iterable[str],
    *,
    num_samples: int,
    corpus_name: str,
    max_length: int = 1024,
    dtype: str = "float32",
    rows_per_batch: int = 16,
    cache_folder: str | Path | None = None,
) -> dict[str, Tensor]:
    """Return ``E[k k^T]`` of each layer's keys over all tokens of some documents.

    Parameters
    ----------
    lm : LanguageModel
        The unedited model.
    layers : sequence of int
        The edited layers.
    texts : iterable of str
        Documents; not touched when every matrix is in the cache.
    num_samples : int
        How many documents to read, from the first one on.
    corpus_name : str
        Identifies ``texts`` in the cache.
    max_length : int
        Documents are cut to this many tokens, or to the model's positions.
    dtype : {"float32", "float64"}
        Precision of the keys; the sums are float64.
    rows_per_batch : int
        Documents run at once.
    cache_folder : path or None
        Where matrices are looked for and written; ``None`` for no cache.

    Returns
    -------
    dict of str to Tensor
        Under each weight's name ``(d_key, d_key)``, float64, on the model's device.

    Raises
    ------
    SecondMomentError
        If a cached file belongs to another model or text, or ``texts`` end early.
    """
    max_length = min(max_length, lm.max_length)
    sources = {
        layer: SecondMomentSource(
            model=lm.name,
            weight=lm.weight_name(layer),
            fingerprint=fingerprint(lm, [layer]),
            d_key=weight_shapes(lm, [layer])[lm.weight_name(layer)][1],
            corpus=corpus_name,
            num_samples=num_samples,
            max_length=max_length,
            dtype=dtype,
        )
        for layer in layers
    }
    paths = {
        layer: Path(cache_folder) / source.file_name if cache_folder else None
        for layer, source in sources.items()
    }
    found = {
        layer: load_second_moment(path, sources[layer])
        for layer, path in paths.items()
        if path is not None and path.exists()
    }
    missing = [layer for layer in layers if layer not in found]
    if missing:
        batches = _batches(lm, texts, num_samples, max_length, rows_per_batch)
        sums = _add_up(lm, {layer: sources[layer] for layer in missing}, batches)
        for layer, moment in sums.items():
            found[layer] = moment.value()
            if (path := paths[layer]) is not None:
                save_second_moment(
                    path, moment.value(), sources[layer], num_tokens=moment.num_samples
                )
    return {lm.weight_name(layer): found[layer].to(lm.device) for layer in layers}


def _batches(
    lm: LanguageModel,
    texts: Iterable[str],
    num_samples: int,
    max_length: int,
    rows_per_batch: int,
) -> Iterator[list[tuple[int, ...]]]:
    """Yield the documents' token ids, ``rows_per_batch`` documents at a time."""
    documents = islice(texts, num_samples)
    count = 0
    while batch := list(islice(documents, rows_per_batch)):
        count += len(batch)
        rows = [tokenize(lm.tokenizer, text).input_ids[:max_length] for text in batch]
        yield [row for row in rows if row]
    if count < num_samples:
        raise SecondMomentError(
            f"Expected {num_samples} documents, found only {count}. Lower the number "
            "of samples or give more text."
        )


@torch.no_grad()
def _add_up(
    lm: LanguageModel,
    sources: Mapping[int, SecondMomentSource],
    batches: Iterable[list[tuple[int, ...]]],
) -> dict[int, SecondMoment]:
    """Sum ``k k^T`` over all tokens that are not padding."""
    names = {layer: lm.down_projection_name(layer) for layer in sources}
    sums = {
        layer: SecondMoment(source.d_key, device=lm.device)
        for layer, source in sources.items()
    }
    for rows in batches:
        padded = pad_batch(rows, lm.pad_token_id)
        mask = padded.attention_mask.to(lm.device)
        with trace(lm.model, list(names.values()), inputs=True, stop=True) as keys:
            lm.decoder(
                input_ids=padded.input_ids.to(lm.device),
                attention_mask=mask,
                position_ids=padded.position_ids.to(lm.device),
                use_cache=False,
            )
        for layer, name in names.items():
            kept = keys[name][mask.bool()]  # (token, d_key)
            sums[layer].add(kept.to(getattr(torch, sources[layer].dtype)))
    return sums
