"""A hypernetwork on disk: the same after loading, and refused where it is damaged."""

from dataclasses import replace

import pytest
import torch
from editing import double_model
from hypernetworks import as_trained, moved_network
from safetensors.torch import load_file, save_file

from flwr_collabedit.editors.hypernetwork_file import (
    load_hypernetwork,
    load_training,
    save_hypernetwork,
)
from flwr_collabedit.errors import HypernetworkError


@pytest.fixture
def trained():
    lm = double_model("gpt2")
    network = moved_network(lm)
    for parameter in network.parameters():  # the statistics stay in float64
        parameter.data = parameter.data.float()
    return as_trained(lm, network)


@pytest.fixture
def path(tmp_path, trained):
    save_hypernetwork(tmp_path / "net.safetensors", trained)
    return tmp_path / "net.safetensors"


def test_it_is_the_same_after_loading(path, trained):
    found = load_hypernetwork(path)

    assert found.card == trained.card
    assert found.fingerprint == trained.fingerprint
    expected = trained.network.state_dict()
    state = found.network.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert not list(path.parent.glob(".draft*"))


def test_equal_ones_are_equal_bytes(path, trained):
    save_hypernetwork(path.parent / "again", trained)

    assert (path.parent / "again").read_bytes() == path.read_bytes()


def test_an_optimizer_is_kept_beside_it(tmp_path, trained):
    save_hypernetwork(tmp_path / "half", trained, {"a/step": torch.tensor(3.0)})

    found, state = load_training(tmp_path / "half")

    assert found.fingerprint == trained.fingerprint
    assert state == {"a/step": torch.tensor(3.0)}


@pytest.mark.parametrize(
    "what", ["log_rates", "log_ridges", "nets.32x64.blocks.0.bias"]
)
def test_the_fingerprint_covers_every_tensor(trained, what):
    before = trained.fingerprint
    with torch.no_grad():
        trained.network.get_parameter(what)[0] += 1e-6

    assert trained.fingerprint != before


def test_the_fingerprint_covers_the_input_statistics(trained):
    before = trained.fingerprint
    [net] = trained.network.nets.values()
    net.normalizer.means[0, 0] += 1e-9

    assert trained.fingerprint != before


def test_the_fingerprint_covers_what_it_reads(trained):
    config = trained.card.config.model_copy(update={"tokens": "all"})
    other = replace(trained, card=trained.card.model_copy(update={"config": config}))

    assert other.fingerprint != trained.fingerprint


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(HypernetworkError, match=r"none.safetensors', found no file"):
        load_hypernetwork(tmp_path / "none.safetensors")


def test_a_damaged_file_is_named(path):
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(HypernetworkError, match="cannot be read"):
        load_hypernetwork(path)


def test_a_file_without_a_card_is_named(path):
    save_file(load_file(path), path)

    with pytest.raises(HypernetworkError, match="cannot be read"):
        load_hypernetwork(path)


def test_a_file_that_lacks_a_tensor_is_named(path, trained):
    tensors = load_file(path)
    tensors.pop("network/log_rates")
    save_file(tensors, path, metadata={"card": trained.card.model_dump_json()})

    with pytest.raises(HypernetworkError, match="cannot be read"):
        load_hypernetwork(path)


def test_a_file_of_another_version_is_named(path, trained):
    card = trained.card.model_dump_json().replace('"version":1', '"version":2')
    save_file(load_file(path), path, metadata={"card": card})

    with pytest.raises(HypernetworkError, match="cannot be read"):
        load_hypernetwork(path)


def test_numbers_that_are_none_are_named(path, trained):
    tensors = load_file(path)
    tensors["network/log_rates"][0] = float("nan")
    save_file(tensors, path, metadata={"card": trained.card.model_dump_json()})

    with pytest.raises(HypernetworkError, match="NaN"):
        load_hypernetwork(path)
