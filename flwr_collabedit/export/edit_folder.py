"""A finished edit on disk: what it changes, and the card that says what that is.

``delta.safetensors`` holds, for each edited weight, its cumulative delta under the
weight's name, ``(d_value, d_key)`` float64, with the card in its metadata. It is the
delta file of DESIGN section 6, whoever made the edit: one party, a simulation, a
deployment. A codebook lies in the same file, each of its tensors under ``codebook/``
and its own name, in the dtype that it has; ``codebook`` in the metadata names the
module. No fact is in it.
"""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from flwr_collabedit.errors import ConfigurationError, EditFileError
from flwr_collabedit.files import replacing
from flwr_collabedit.models.codebook import Codebook, applied_edit
from flwr_collabedit.models.fingerprint import fingerprint
from flwr_collabedit.models.language_model import LanguageModel

DELTA_FILE = "delta.safetensors"
_CODEBOOK = "codebook"
_BOOK_TENSORS = ("keys", "values", "radii", "labels")
_PACKAGES = ("flwr-collabedit", "flwr", "torch", "transformers", "datasets")


class EditCard(BaseModel):
    """What an edit changed and how, without its facts.

    Attributes
    ----------
    model, revision : str
        What the base model was loaded as; an empty revision is the hub's default.
    fingerprint : str
        Of the base model and its edited weights, see
        `flwr_collabedit.models.fingerprint.fingerprint`.
    layers : tuple of int
        The edited layers.
    editor : str
        JSON of the editor's configuration.
    method : str
        How it was made, such as ``MEMIT`` or ``CollabEdit``.
    num_edits, num_clients, num_rounds : int
        Facts written, parties that brought them, rounds.
    settings : mapping
        All other settings, as told to whoever reads the card.
    scores : mapping of str to mapping
        By method (``before``, ``after``, ...) the measures in percent.
    packages : mapping of str to str
        Versions that it was made with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    model: str
    revision: str = ""
    fingerprint: str
    layers: tuple[int, ...]
    editor: str
    method: str = "MEMIT"
    num_edits: int
    num_clients: int = 1
    num_rounds: int = 1
    settings: Mapping[str, Any] = {}
    scores: Mapping[str, Mapping[str, float]] = {}
    packages: Mapping[str, str] = {}

    @property
    def dtype(self) -> str:
        """Type of the base weights when they were edited; the fingerprint is of it."""
        return str(self.settings.get("dtype", "float32"))

    @property
    def chat_template(self) -> bool:
        """Whether the edited prompts were turns of a chat."""
        return bool(self.settings.get("chat-template"))


@dataclass(frozen=True)
class SavedEdit:
    """What a file has: deltas in float64, codebook and card; tensors on the CPU."""

    deltas: dict[str, Tensor]
    card: EditCard
    codebook: Codebook | None = None

    def applied(self, lm: LanguageModel) -> AbstractContextManager[None]:
        """Return a context in which the base model is edited."""
        return applied_edit(lm, self.deltas, self.codebook)


def save_edit(
    path: Path,
    deltas: Mapping[str, Tensor],
    card: EditCard,
    codebook: Codebook | None = None,
) -> None:
    """Write a delta file, whole or not at all.

    Parameters
    ----------
    path : Path
        The file; its folder is made.
    deltas : mapping of str to Tensor
        Cumulative deltas by parameter name, ``(d_value, d_key)``; stored in float64.
    card : EditCard
        What they are.
    codebook : Codebook or None
        What answers beside them, if anything does.
    """
    tensors = {name: one.cpu().double().contiguous() for name, one in deltas.items()}
    metadata = {"card": card.model_dump_json()}
    if codebook is not None:
        metadata[_CODEBOOK] = codebook.module
        own = codebook.tensors().items()
        tensors |= {f"{_CODEBOOK}/{name}": one for name, one in own}
    with replacing(path) as draft:
        save_file(tensors, draft, metadata=metadata)


def load_edit(path: Path) -> tuple[dict[str, Tensor], EditCard]:
    """Return the deltas, float64 on the CPU, and the card of an edit of weights.

    Errors are those of `load_whole_edit`, and:

    Raises
    ------
    ConfigurationError
        If a codebook belongs to the edit: the deltas would not be all of it.
    """
    edit = load_whole_edit(path)
    if edit.codebook is not None:
        raise ConfigurationError(
            f"Expected an edit of weights in '{path}', found one of "
            f"{edit.card.method} with a codebook of {len(edit.codebook)} entries, "
            "which answers beside the weights and is no part of them. `collabedit ask` "
            "and `collabedit evaluate` take it; in Python: load_whole_edit."
        )
    return edit.deltas, edit.card


def load_whole_edit(path: Path) -> SavedEdit:
    """Return an edit, of weights or with a codebook.

    Parameters
    ----------
    path : Path
        A delta file, or a folder with ``delta.safetensors`` in it: what `collabedit
        edit` or a simulation wrote.

    Raises
    ------
    EditFileError
        If there is none, or it cannot be read.
    """
    file = path / DELTA_FILE if path.is_dir() else path
    if not file.is_file():
        raise EditFileError(
            f"Expected an edit at '{path}', found no {DELTA_FILE}. Give the folder "
            "that `collabedit edit` or `collabedit simulate` wrote."
        )
    try:
        with safe_open(file, framework="pt") as found:
            metadata = found.metadata() or {}
            tensors = {name: found.get_tensor(name) for name in found.keys()}  # noqa: SIM118
        card = EditCard.model_validate(json.loads(metadata.get("card", "null")))
        book = None
        if _CODEBOOK in metadata:
            own = {name: tensors.pop(f"{_CODEBOOK}/{name}") for name in _BOOK_TENSORS}
            book = Codebook(metadata[_CODEBOOK], **own)
        return SavedEdit(tensors, card, book)
    except (SafetensorError, ValidationError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise EditFileError(
            f"Expected an edit in '{file}', but it cannot be read: {reason}. Make it "
            "again, or take another copy."
        ) from error


def is_edit(path: Path) -> bool:
    """Return whether there is an edit, damaged or not."""
    return (path / DELTA_FILE).is_file() or path.suffix == ".safetensors"


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that decide on an edit."""
    return {name: version(name) for name in _PACKAGES}


def check_base(lm: LanguageModel, card: EditCard) -> None:
    """Raise unless ``lm`` is the base model that the edit was made for.

    Raises
    ------
    ConfigurationError
        If its configuration, tokenizer or edited weights are others.
    """
    if fingerprint(lm, card.layers) != card.fingerprint:
        raise ConfigurationError(
            f"Expected the unedited model {card.model!r} that the edit was made for, "
            f"found other weights or another tokenizer in {lm.name!r}. Give the same "
            "model and revision."
        )
