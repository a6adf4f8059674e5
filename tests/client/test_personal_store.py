"""A personal model on disk: what is saved comes back, another run's is refused."""

from dataclasses import replace

import pytest
import torch

from flwr_collabedit.algebra.mediator import MediatorVectors
from flwr_collabedit.client.personal_store import PersonalModel, PersonalStore
from flwr_collabedit.errors import ConfigurationError

SHAPES = {"a": (4, 6), "b": (4, 9)}


def edited(model: PersonalModel, count: int = 2) -> PersonalModel:
    residuals = {name: torch.randn(4, count).double() for name in SHAPES}
    deltas = {
        name: model.deltas[name] + residuals[name] @ torch.randn(count, d_key).double()
        for name, (_, d_key) in SHAPES.items()
    }
    deltas, bases = model.written(deltas, residuals)
    vectors = MediatorVectors(
        torch.randn(count, 4).double(),
        torch.randn(count, 4).double(),
        {name: torch.randn(d, count).double() for name, (_, d) in SHAPES.items()},
        torch.arange(count),
    )
    return replace(
        model,
        slot=model.slot + 1,
        is_shared_only=True,
        deltas=deltas,
        bases=bases,
        own=MediatorVectors.join([model.own, vectors]),
        slot_size=count,
        received=("client-1/1/0",),
    )


def test_a_new_client_has_the_base_model(tmp_path):
    model = PersonalStore(tmp_path / "new").load("run", "f", SHAPES)

    assert (model.slot, len(model.own), model.received) == (0, 0, ())
    assert all(not delta.any() for delta in model.deltas.values())
    assert not (tmp_path / "new").exists()


def test_what_is_saved_comes_back(tmp_path):
    store = PersonalStore(tmp_path)
    model = edited(edited(PersonalModel.new(SHAPES), 1), 2)

    store.save(model, "run", "f")
    found = PersonalStore(tmp_path).load("run", "f", SHAPES)

    for name in SHAPES:
        assert torch.allclose(found.deltas[name], model.deltas[name], atol=1e-12)
        assert found.bases[name].shape == (4, 3)
        assert torch.equal(found.own.keys[name], model.own.keys[name])
    assert torch.equal(found.own.z, model.own.z)
    assert (found.slot, found.is_shared_only, found.slot_size) == (2, True, 2)
    assert found.received == ("client-1/1/0",)


@pytest.mark.parametrize(
    ("run_id", "fingerprint", "reason"),
    [("other", "f", "run_id 'other'"), ("run", "g", "fingerprint 'g'")],
)
def test_the_model_of_another_run_or_base_is_refused(
    tmp_path, run_id, fingerprint, reason
):
    store = PersonalStore(tmp_path)
    store.save(edited(PersonalModel.new(SHAPES)), "run", "f")

    with pytest.raises(ConfigurationError, match=reason):
        store.load(run_id, fingerprint, SHAPES)
