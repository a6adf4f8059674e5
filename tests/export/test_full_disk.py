"""A disk without room, before an export and in the middle of it."""

import errno
import shutil
from types import SimpleNamespace

import pytest
import torch
from editing_together import logits
from safetensors import SafetensorError

from flwr_collabedit.errors import DiskSpaceError
from flwr_collabedit.export.export_edit import export_edit
from flwr_collabedit.export.written import Form

WRITERS = {
    Form.MODEL: "transformers.modeling_utils.safe_save_file",
    Form.DELTA: "flwr_collabedit.export.edit_folder.save_file",
    Form.LORA: "flwr_collabedit.export.lora.save_file",
}
FULL = {
    "system": OSError(errno.ENOSPC, "No space left on device"),
    "safetensors": SafetensorError("Error: I/O error: No space left on device (28)"),
}


@pytest.mark.parametrize("error", FULL.values(), ids=FULL)
@pytest.mark.parametrize("form", Form)
def test_a_disk_that_becomes_full_leaves_nothing(
    form, error, edited_gpt2, tmp_path, monkeypatch
):
    def half_written(tensors, path, metadata=None):
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(b"half")
        raise error

    monkeypatch.setattr(WRITERS[form], half_written)
    lm = edited_gpt2.lm
    before = logits(lm.model)

    with pytest.raises(type(error), match="No space left"):
        export_edit(lm, edited_gpt2.deltas, edited_gpt2.card, tmp_path / "out", form)

    assert list(tmp_path.iterdir()) == []
    assert torch.equal(logits(lm.model), before)


@pytest.mark.parametrize("form", Form)
def test_a_disk_without_room_is_told_before_anything_is_written(
    form, edited_gpt2, tmp_path, monkeypatch
):
    def never(*args, **kwargs):
        raise AssertionError("nothing may be written")

    monkeypatch.setattr(WRITERS[form], never)
    asked = []
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: asked.append(path) or SimpleNamespace(free=9)
    )

    with pytest.raises(DiskSpaceError, match="No space left on device: expected"):
        export_edit(
            edited_gpt2.lm, edited_gpt2.deltas, edited_gpt2.card, tmp_path / "out", form
        )

    assert asked == [tmp_path]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", Form)
def test_the_room_that_is_asked_for_is_what_the_weights_take(
    form, edited_gpt2, tmp_path, monkeypatch
):
    asked = []
    for module in ("export_edit", "full_model", "lora"):
        monkeypatch.setattr(
            f"flwr_collabedit.export.{module}.check_space",
            lambda folder, num_bytes: asked.append(num_bytes),
        )

    export_edit(
        edited_gpt2.lm, edited_gpt2.deltas, edited_gpt2.card, tmp_path / "out", form
    )

    [weights] = (tmp_path / "out").glob("*.safetensors")
    # The rest is the file's header: names, shapes and the card.
    assert asked[0] <= weights.stat().st_size <= asked[0] + 8_000
