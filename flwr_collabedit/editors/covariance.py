"""Second moments of the edited layers' keys, estimated from text and kept on disk.

Meng et al. "Mass-Editing Memory in a Transformer", ICLR 2023, section 4.1: ``C0`` is
the uncentred ``E[k k^T]`` over the tokens of a sample of documents. It enters every
solve, so all parties of a federated edit must use the very same file.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from flwr_collabedit.editors.key_sums import KeySums
from flwr_collabedit.editors.resumable_reading import Progress, ResumableReading
from flwr_collabedit.editors.second_moment_file import (
    SecondMomentCard,
    load_second_moment,
    save_second_moment,
)
from flwr_collabedit.editors.second_moment_source import (
    SecondMomentSource,
    second_moment_sources,
)
from flwr_collabedit.models.language_model import LanguageModel


@dataclass(frozen=True)
class Estimate:
    """A second moment and where it is.

    Attributes
    ----------
    matrix : Tensor
        Shape ``(d_key, d_key)``, float64, on the CPU if it was read from a file.
    card : SecondMomentCard
        What it was estimated from.
    path : Path or None
        The file.
    was_there : bool
        Whether it was read from the file rather than estimated.
    """

    matrix: Tensor
    card: SecondMomentCard
    path: Path | None
    was_there: bool


def estimate_second_moments(
    lm: LanguageModel,
    layers: Sequence[int],
    texts: Iterable[str],
    *,
    corpus_name: str,
    num_samples: int = 0,
    multiple: float = 0.0,
    shrink: bool | None = None,
    max_length: int = 1024,
    dtype: str = "float32",
    rows_per_batch: int = 16,
    cache_folder: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Return ``E[k k^T]`` of each layer's keys over all tokens of some documents.

    Parameters
    ----------
    lm, layers, corpus_name, num_samples, multiple, shrink, max_length, dtype
        See `second_moment_sources`.
    texts, rows_per_batch, progress
        See `estimate`.
    cache_folder : path or None
        Where matrices are looked for and written; ``None`` for no cache.

    Returns
    -------
    dict of str to Tensor
        Under each weight's name ``(d_key, d_key)``, float64, on the model's device.

    Raises
    ------
    ConfigurationError
        If not exactly one of ``num_samples`` and ``multiple`` is given.
    SecondMomentError
        If a cached file belongs to another model or text, or ``texts`` end early.
    """
    sources = second_moment_sources(
        lm,
        layers,
        corpus_name=corpus_name,
        num_samples=num_samples,
        multiple=multiple,
        shrink=shrink,
        max_length=max_length,
        dtype=dtype,
    )
    found = estimate(
        lm,
        sources,
        texts,
        folder=None if cache_folder is None else Path(cache_folder),
        rows_per_batch=rows_per_batch,
        progress=progress,
    )
    return {
        sources[layer].weight: found[layer].matrix.to(lm.device) for layer in layers
    }


def estimate(
    lm: LanguageModel,
    sources: Mapping[int, SecondMomentSource],
    texts: Iterable[str],
    *,
    folder: Path | None = None,
    rows_per_batch: int = 16,
    progress: Progress | None = None,
    save_every_s: float = 120.0,
) -> dict[int, Estimate]:
    """Return the second moments, from their files where there are some.

    What is missing is read in one go. Where a folder is given, the sums so far are
    written to it now and then, and on Ctrl-C or where memory does not suffice: the same
    call then goes on after the last document in them, to the same bits if
    ``rows_per_batch`` is the same too.

    Parameters
    ----------
    lm : LanguageModel
        The unedited model.
    sources : mapping of int to SecondMomentSource
        What to estimate, by layer, from one call of `second_moment_sources`.
    texts : iterable of str
        Documents, every time from the first one on; not touched when every matrix has
        its file.
    folder : Path or None
        Where files are looked for and written.
    rows_per_batch : int
        Documents run at once.
    progress : callable or None
        Called with the documents, or tokens of a small sample, read and to be read.
    save_every_s : float
        Seconds of reading between two writings of the sums; more where writing takes
        long, so that it costs a twentieth of the time at most.

    Raises
    ------
    SecondMomentError
        If a file belongs to another model or text, or ``texts`` end early; what was
        read stays for a call that asks for less.
    """
    found = {}
    for layer, source in sources.items():
        if folder is not None and (path := folder / source.file_name).exists():
            found[layer] = Estimate(*load_second_moment(path, source), path, True)
    missing = {layer: one for layer, one in sources.items() if layer not in found}
    if missing:
        reading = ResumableReading(lm, missing, folder, rows_per_batch, save_every_s)
        sums = reading.run(texts, progress)
        for layer, source in missing.items():
            found[layer] = _finished(sums, layer, source, folder)
        reading.forget()
    return {layer: found[layer] for layer in sources}


def _finished(
    sums: KeySums, layer: int, source: SecondMomentSource, folder: Path | None
) -> Estimate:
    """Return a layer's second moment; it has its file then."""
    moment = sums.moments[layer]
    card = SecondMomentCard(
        source=source,
        num_documents=sums.num_documents,
        num_tokens=sums.num_tokens,
        shrinkage=moment.shrinkage() if source.shrink else 0.0,
    )
    matrix = moment.value(card.shrinkage)
    path = None if folder is None else folder / source.file_name
    if path is not None:
        save_second_moment(path, matrix, card)
    return Estimate(matrix, card, path, False)
