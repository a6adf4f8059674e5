"""Second moments on disk: a matrix and what it was estimated from.

A safetensors file with one tensor, ``second_moment``, ``(d_key, d_key)`` float64, and a
`SecondMomentCard` as JSON under the metadata's key ``source``. The matrix enters every
solve, so a file of another model or text is refused. Neither time nor place is in it:
equal estimates give equal bytes, and parties compare files by their SHA-256.
"""

import json
from hashlib import file_digest
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from flwr_collabedit.editors.second_moment_source import SecondMomentSource
from flwr_collabedit.errors import SecondMomentError
from flwr_collabedit.files import replacing

FORMAT_VERSION = 2
_TENSOR, _CARD = "second_moment", "source"


class SecondMomentCard(BaseModel):
    """What a file holds.

    Attributes
    ----------
    source : SecondMomentSource
        What it was estimated from.
    num_documents, num_tokens : int
        How many were read; a token is a key.
    shrinkage : float
        The intensity, see `flwr_collabedit.algebra.shrinkage.shrunk`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = FORMAT_VERSION
    source: SecondMomentSource
    num_documents: int
    num_tokens: int
    shrinkage: float = 0.0


def save_second_moment(path: Path, matrix: Tensor, card: SecondMomentCard) -> None:
    """Write a second moment and where it comes from, whole or not at all."""
    with replacing(path) as draft:
        save_file(
            {_TENSOR: matrix.double().cpu().contiguous()},
            draft,
            metadata={_CARD: card.model_dump_json()},
        )


def read_card(path: Path) -> SecondMomentCard:
    """Return what a file holds, without reading the matrix.

    Raises
    ------
    SecondMomentError
        If it is no second moment, is damaged or was written by another version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_CARD, "{}")
        version = json.loads(text).get("version", 1)
        if version == FORMAT_VERSION:
            return SecondMomentCard.model_validate_json(text)
    except (SafetensorError, OSError, ValidationError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SecondMomentError(
            f"Expected a second moment in '{path}', but it cannot be read: {reason}. "
            "Delete the file to estimate it again."
        ) from error
    raise SecondMomentError(
        f"Expected a second moment of format {FORMAT_VERSION} in '{path}', found "
        f"{version}. Delete the file to estimate it again."
    )


def load_second_moment(
    path: Path, expected: SecondMomentSource
) -> tuple[Tensor, SecondMomentCard]:
    """Return the matrix in ``path``, float64 on the CPU, and its card.

    Raises
    ------
    SecondMomentError
        If the file does not hold the second moment of ``expected``.
    """
    card = read_card(path)
    for name in SecondMomentSource.model_fields:
        value, found = getattr(expected, name), getattr(card.source, name)
        if value != found:
            raise _foreign(path, expected, name, value, found)
    with safe_open(path, framework="pt") as file:
        matrix: Tensor = file.get_tensor(_TENSOR)
    shape = (expected.d_key, expected.d_key)
    if matrix.shape != shape:
        raise _foreign(path, expected, "shape", shape, tuple(matrix.shape))
    if not torch.isfinite(matrix).all():
        raise _foreign(path, expected, "entries", "finite", "NaN or infinity")
    return matrix.double(), card


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file: what parties compare."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _foreign(
    path: Path, source: SecondMomentSource, field: str, expected: object, found: object
) -> SecondMomentError:
    return SecondMomentError(
        f"Expected in '{path}' the second moment of {source.weight!r} of "
        f"{source.model!r} with {field} {expected!r}, found {found!r}. It belongs to "
        "another model (weights, revision, --dtype or tokenizer) or text: load the one "
        "that it was made for, delete the file, or choose another folder."
    )
