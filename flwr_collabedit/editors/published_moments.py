"""Second moments that the authors of ROME and MEMIT published, as files of ours.

Their statistics are ``.npz`` files, one a layer, named
``{model}/{corpus}_stats/{module}_float32_mom2_{documents}.npz``, with the state of a
running sum: ``mom2.mom2`` is ``sum k k^T``, ``(d_key, d_key)``, float32; ``mom2.count``
the number of tokens; ``sample_size`` the number of documents. Nothing in them says
which weights they belong to: what is checked here is that they could.

Layout: ``rome/layer_stats.py`` and ``util/runningstats.py`` of kmeng01/memit.
"""

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flwr_collabedit.algebra.shrinkage import shrunk
from flwr_collabedit.editors.second_moment_file import (
    SecondMomentCard,
    save_second_moment,
)
from flwr_collabedit.editors.second_moment_source import SecondMomentSource
from flwr_collabedit.errors import SecondMomentError, shorten
from flwr_collabedit.models.fingerprint import fingerprint
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import weight_shapes

_NAME = re.compile(r"(?P<module>.+)_(?P<dtype>float\d+)_mom2_(?P<documents>\d+)\.npz")
# Sums of float32 in float32: how far rounding may make a matrix unsymmetric, and how
# much of the identity may be needed to lift the eigenvalues that it pushed below zero.
_ASYMMETRY = 1e-4
_LIFTS = (0.0, 1e-8, 1e-7, 1e-6, 1e-5)


def published_files(
    lm: LanguageModel, path: Path, layers: Sequence[int] = ()
) -> dict[int, Path]:
    """Return which published file is of which layer.

    Parameters
    ----------
    lm : LanguageModel
        The model whose modules the files' names are compared with.
    path : Path
        One file, or a folder of them.
    layers : sequence of int
        Which layers are wanted; all that there are if empty. With one layer a file may
        have any name.

    Raises
    ------
    SecondMomentError
        If a layer has no file or several, or a file is of none.
    """
    layer_of = {lm.down_projection_name(i): i for i in range(lm.num_layers)}
    files = sorted(path.glob("*_mom2_*.npz")) if path.is_dir() else [path]
    found: dict[int, list[Path]] = {}
    for file in files:
        name = _NAME.fullmatch(file.name)
        if name is None and len(files) == len(layers) == 1:
            found[layers[0]] = files
        elif name is not None and name["module"] in layer_of:
            found.setdefault(layer_of[name["module"]], []).append(file)
    wanted = list(layers) or sorted(found)
    bad = [layer for layer in wanted if len(found.get(layer, [])) != 1]
    if bad or not wanted:
        expected = lm.down_projection_name(bad[0] if bad else 0)
        there = sorted(file.name for file in files if file.exists())
        raise SecondMomentError(
            f"Expected one file such as '{expected}_float32_mom2_100000.npz' for each "
            f"layer [{shorten(layers) or 'any'}] at '{path}', found [{shorten(there)}]."
            " Give the model and the layers that the files are for, or one file and "
            "its layer."
        )
    return {layer: found[layer][0] for layer in wanted}


def import_published(
    lm: LanguageModel, layer: int, path: Path, folder: Path, *, corpus: str = ""
) -> Path:
    """Check a published file, write it as a file of ours and return where.

    Parameters
    ----------
    lm : LanguageModel
        The model that it is taken to be for.
    layer : int
        The layer that it is taken to be for.
    path : Path
        The ``.npz`` file.
    folder : Path
        Where to write.
    corpus : str
        Name of the text; that in the name of the file's folder if empty.

    Raises
    ------
    SecondMomentError
        If it has another layout or width, is not finite, not symmetric, or not positive
        semidefinite beyond what sums in float32 explain.
    """
    name = lm.weight_name(layer)
    d_key = weight_shapes(lm, [layer])[name][1]
    total, num_tokens, num_documents, dtype = _read(path)
    if total.shape != (d_key, d_key):
        raise _wrong(path, f"shape {(d_key, d_key)} for {name!r}", tuple(total.shape))
    if not torch.isfinite(total).all():
        raise _wrong(path, "finite entries", "NaN or infinity")
    asymmetry = float((total - total.T).norm() / total.norm())
    if not asymmetry <= _ASYMMETRY:
        raise _wrong(path, "a symmetric matrix", f"asymmetry {asymmetry:.1e}")
    moment, lift = _lifted(path, (total + total.T) / (2 * num_tokens))
    source = SecondMomentSource(
        model=lm.name,
        layer=layer,
        weight=name,
        fingerprint=fingerprint(lm, [layer]),
        d_key=d_key,
        corpus=corpus or path.absolute().parent.name.removesuffix("_stats"),
        num_samples=num_documents,
        max_length=0,
        dtype=dtype,
        origin="npz",
    )
    card = SecondMomentCard(
        source=source,
        num_documents=num_documents,
        num_tokens=num_tokens,
        shrinkage=lift,
    )
    save_second_moment(folder / source.file_name, moment, card)
    return folder / source.file_name


def _read(path: Path) -> tuple[Tensor, int, int, str]:
    """Return ``sum k k^T`` in float64, tokens, documents and the sum's dtype."""
    try:
        with np.load(path, allow_pickle=False) as file:
            total, count = file["mom2.mom2"], int(file["mom2.count"])
            documents = int(file["sample_size"]) if "sample_size" in file else 0
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise _wrong(path, "arrays 'mom2.mom2' and 'mom2.count'", error) from error
    if count <= 0 or total.dtype.kind != "f":
        raise _wrong(path, "a count > 0 and floats", f"{count} and {total.dtype}")
    dtype = str(total.dtype)
    return torch.from_numpy(total.astype(np.float64)), count, documents, dtype


def _lifted(path: Path, moment: Tensor) -> tuple[Tensor, float]:
    """Return the matrix, positive definite, and how far it was shrunk for that."""
    if float(moment.diagonal().min()) >= 0:
        for lift in _LIFTS:
            lifted = shrunk(moment, lift) if lift else moment
            if int(torch.linalg.cholesky_ex(lifted).info) == 0:
                return lifted, lift
    smallest = float(torch.linalg.eigvalsh(moment).min() / moment.diagonal().mean())
    raise _wrong(
        path,
        "a positive semidefinite matrix",
        f"an eigenvalue of {smallest:.1e} times their mean",
    )


def _wrong(path: Path, expected: str, found: object) -> SecondMomentError:
    return SecondMomentError(
        f"Expected {expected} in '{path}', found {found}. Download it again, or give "
        "the model and the layer that it is for."
    )
