"""An edit made into a folder that other programs load, in one of three forms."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from flwr_collabedit.errors import ConfigurationError, EditFileError, shorten
from flwr_collabedit.export.edit_folder import (
    DELTA_FILE,
    EditCard,
    check_base,
    save_edit,
)
from flwr_collabedit.export.full_model import write_model
from flwr_collabedit.export.lora import write_adapter
from flwr_collabedit.export.model_card import model_card
from flwr_collabedit.export.written import Form, Progress, WrittenLayer
from flwr_collabedit.files import check_space, new_folder
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import read_weight, weight_shapes


def export_edit(
    lm: LanguageModel,
    deltas: Mapping[str, Tensor],
    card: EditCard,
    out: Path,
    form: Form,
    *,
    dtype: torch.dtype | None = None,
    max_rank: int | None = None,
    progress: Progress = lambda done, total: None,
) -> list[WrittenLayer]:
    """Write an edit as a model, a delta file or a LoRA adapter, with its model card.

    The folder appears whole or not at all; the model in memory keeps its bits.

    Parameters
    ----------
    lm : LanguageModel
        The base model, unedited.
    deltas, card
        As `flwr_collabedit.export.edit_folder.load_edit` returns them.
    out : Path
        The folder; it must not exist, or be empty.
    form : Form
        ``MODEL``: what ``AutoModelForCausalLM.from_pretrained`` loads. ``DELTA``: the
        file of `flwr_collabedit.export.edit_folder`. ``LORA``: what
        ``PeftModel.from_pretrained`` loads onto the base model.
    dtype : torch.dtype or None
        Of the exported weights. ``None`` is the base model's for ``MODEL``; for
        ``LORA`` the same, but at least float32. A delta file is always float64.
    max_rank : int or None
        For ``LORA``: keep that many singular values of each delta at most, >= 1;
        ``None`` keeps all above `flwr_collabedit.export.low_rank.TOLERANCE`.
    progress : callable
        Told ``(layers done, layers)``.

    Returns
    -------
    list of WrittenLayer
        In the order of the deltas.

    Raises
    ------
    ConfigurationError
        If ``lm`` is not the base model, ``out`` is taken, an option does not belong to
        the form, or `peft` is missing for ``LORA``.
    EditFileError
        If the deltas are not of the card's layers.
    DiskSpaceError
        If the disk has not room for it; nothing is written then.
    OSError, safetensors.SafetensorError
        If the disk fills up meanwhile; nothing half-written is left then.
    """
    check_options(form, dtype=dtype, max_rank=max_rank)
    check_base(lm, card)
    _check_deltas(lm, deltas, card)
    ranks: dict[str, int] = {}
    with new_folder(out) as draft:
        if form is Form.MODEL:
            errors = write_model(lm, deltas, draft, dtype or lm.dtype, progress)
        elif form is Form.LORA:
            factors = write_adapter(
                lm,
                deltas,
                draft,
                dtype or torch.promote_types(lm.dtype, torch.float32),
                progress,
                revision=card.revision,
                max_rank=max_rank,
            )
            ranks = {name: one.rank for name, one in factors.items()}
            errors = {name: one.relative_error for name, one in factors.items()}
        else:
            check_space(draft.parent, sum(8 * one.numel() for one in deltas.values()))
            save_edit(draft / DELTA_FILE, deltas, card)
            errors = dict.fromkeys(deltas, 0.0)
        written = [
            WrittenLayer(
                name, _relative_norm(lm, name, delta), ranks.get(name), errors[name]
            )
            for name, delta in deltas.items()
        ]
        is_local = card.model == "embedded" or Path(card.model).exists()
        text = model_card(card, form, written, on_hub=not is_local)
        (draft / "README.md").write_text(text, encoding="utf-8")
    return written


def check_options(
    form: Form, *, dtype: object | None = None, max_rank: int | None = None
) -> None:
    """Raise unless the form has the options; to be asked before a model is loaded.

    Raises
    ------
    ConfigurationError
        If it has not, or the rank is below 1.
    """
    if max_rank is not None and (form is not Form.LORA or max_rank < 1):
        raise ConfigurationError(
            f"Expected a rank of at least 1, and for 'lora' only; found {max_rank} for "
            f"{form.value!r}. Leave it out to keep everything."
        )
    if dtype is not None and form is Form.DELTA:
        raise ConfigurationError(
            f"Expected no dtype for 'delta', whose file is always float64; found "
            f"{str(dtype).removeprefix('torch.')!r}. Leave it out."
        )


def _relative_norm(lm: LanguageModel, name: str, delta: Tensor) -> float:
    weight = read_weight(lm.model, name).double()
    return float(delta.double().norm()) / float(weight.norm())


def _check_deltas(
    lm: LanguageModel, deltas: Mapping[str, Tensor], card: EditCard
) -> None:
    expected = weight_shapes(lm, card.layers)
    found = {name: tuple(delta.shape) for name, delta in deltas.items()}
    wrong = [name for name, shape in found.items() if expected.get(name) != shape]
    if wrong or not found:
        raise EditFileError(
            f"Expected deltas of {shorten(expected)} with the shapes of these weights "
            f"in {lm.name!r}, found others: {shorten(wrong)}. Make the edit again."
        )
    for name, delta in deltas.items():
        if not delta.isfinite().all():
            raise EditFileError(
                f"Expected a finite delta of {name!r}, found NaN or infinity. Make the "
                "edit again."
            )
