import pytest
import torch
from pico import pico_language_model
from safetensors.torch import load_file, save_file

from flwr_collabedit.errors import ConfigurationError, EditFileError
from flwr_collabedit.export.edit_folder import (
    DELTA_FILE,
    EditCard,
    check_base,
    load_edit,
    load_whole_edit,
    save_edit,
)
from flwr_collabedit.models.codebook import Codebook
from flwr_collabedit.models.fingerprint import fingerprint
from flwr_collabedit.models.weights import weight_shapes, write_delta

CARD = EditCard(
    model="m", fingerprint="f", layers=(0, 2), editor="{}", num_edits=3, num_clients=2
)


def test_an_edit_is_read_as_it_was_written(tmp_path):
    deltas = {"a.weight": torch.randn(2, 3), "b.weight": torch.randn(3, 2).T}

    save_edit(tmp_path / "new" / DELTA_FILE, deltas, CARD)

    for path in (tmp_path / "new", tmp_path / "new" / DELTA_FILE):
        found, card = load_edit(path)
        assert card == CARD
        assert found.keys() == deltas.keys()
        for name, delta in deltas.items():
            assert found[name].dtype == torch.float64
            assert torch.equal(found[name], delta.double())


def codebook() -> Codebook:
    return Codebook(
        "h.1.mlp.c_proj",
        keys=torch.randn(2, 5),
        values=torch.randn(3, 2).T,
        radii=torch.tensor([0.5, 2.0]),
        labels=torch.tensor([-(2**63), 7]),
    )


@pytest.mark.parametrize("weights", [{}, {"a.weight": torch.randn(2, 3)}])
def test_a_codebook_is_read_as_it_was_written(tmp_path, weights):
    book = codebook()

    save_edit(tmp_path / DELTA_FILE, weights, CARD, book)

    found = load_whole_edit(tmp_path)
    assert found.card == CARD
    assert found.deltas.keys() == weights.keys()
    assert found.codebook is not None
    for name, value in vars(book).items():
        read = getattr(found.codebook, name)
        assert torch.equal(read, value) if name != "module" else read == value
        assert getattr(read, "dtype", None) == getattr(value, "dtype", None)


def test_the_deltas_of_an_edit_with_a_codebook_are_not_taken_for_all_of_it(tmp_path):
    save_edit(tmp_path / DELTA_FILE, {}, CARD, codebook())

    with pytest.raises(ConfigurationError, match="codebook of 2 entries"):
        load_edit(tmp_path)


def test_a_codebook_that_lacks_a_tensor_is_refused(tmp_path):
    save_edit(tmp_path / DELTA_FILE, {}, CARD, codebook())
    tensors = load_file(tmp_path / DELTA_FILE)
    del tensors["codebook/radii"]
    metadata = {"card": CARD.model_dump_json(), "codebook": "h.1.mlp.c_proj"}
    save_file(tensors, tmp_path / DELTA_FILE, metadata=metadata)

    with pytest.raises(EditFileError, match="codebook/radii"):
        load_whole_edit(tmp_path)


def test_an_edit_of_weights_has_no_codebook(tmp_path):
    save_edit(tmp_path / DELTA_FILE, {"a.weight": torch.zeros(2, 3)}, CARD)

    assert load_whole_edit(tmp_path).codebook is None


def test_what_is_no_edit_is_refused(tmp_path):
    with pytest.raises(EditFileError, match="found no delta"):
        load_edit(tmp_path)
    (tmp_path / DELTA_FILE).write_bytes(b"rubbish")
    with pytest.raises(EditFileError, match="cannot be read"):
        load_edit(tmp_path)


def test_a_file_of_tensors_without_a_card_is_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / DELTA_FILE)

    with pytest.raises(EditFileError, match="EditCard"):
        load_edit(tmp_path)


def test_a_card_of_another_version_is_refused(tmp_path):
    save_edit(tmp_path / DELTA_FILE, {"a": torch.zeros(2, 2)}, CARD)
    tensors = load_file(tmp_path / DELTA_FILE)
    newer = CARD.model_dump_json().replace('"version":1', '"version":2')
    assert newer != CARD.model_dump_json()
    save_file(tensors, tmp_path / DELTA_FILE, metadata={"card": newer})

    with pytest.raises(EditFileError, match="version"):
        load_edit(tmp_path)


def test_only_the_base_model_is_accepted():
    lm = pico_language_model("gpt2")
    card = CARD.model_copy(update={"layers": (0,), "fingerprint": fingerprint(lm, [0])})
    check_base(lm, card)

    name = lm.weight_name(0)
    write_delta(lm, name, torch.ones(weight_shapes(lm, [0])[name]))

    with pytest.raises(ConfigurationError, match="unedited model"):
        check_base(lm, card)
