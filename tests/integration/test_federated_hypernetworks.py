"""MALMEN and MEND in the federation: where merged equals pooled, and where it cannot.

The published setup has neither: its loss is the mean over a batch, and its statistics
go on with the edits at hand (docs/method.md).
"""

from typing import Any

import pytest
import torch
from federating import CASES, ROUNDS, SERVER, make_grid
from flwr.serverapp.exception import AggregationError
from pico import pico_language_model

from flwr_collabedit.algebra.history import EditHistory
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.editor import EditResult, ModelEdit
from flwr_collabedit.editors.editor_config import EditorConfig
from flwr_collabedit.editors.hypernetwork import Hypernetwork
from flwr_collabedit.editors.hypernetwork_config import HypernetworkConfig
from flwr_collabedit.editors.hypernetwork_file import (
    HypernetworkCard,
    TrainedHypernetwork,
    save_hypernetwork,
)
from flwr_collabedit.editors.kinds import EditorParts, make_editor, solve_priors
from flwr_collabedit.editors.label_gradients import label_gradients
from flwr_collabedit.editors.malmen_config import MalmenConfig
from flwr_collabedit.editors.mend_config import MendConfig
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.messages.payloads import read_deltas
from flwr_collabedit.models.fingerprint import describe, fingerprint
from flwr_collabedit.models.weights import weight_shapes
from flwr_collabedit.strategies import (
    CollabEditStrategy,
    FedEditStrategy,
    SimpleAverage,
    TaskArithmetic,
)

LAYERS = (0, 1)
MALMEN = MalmenConfig(layers=LAYERS)


class Federation:
    """A model, a hypernetwork's file, and what one party or several make of them."""

    def __init__(self, folder, config: EditorConfig = MALMEN, **changes: Any) -> None:
        self.folder = folder
        self.lm = pico_language_model("gpt2", dtype=torch.float64)
        network = moved_network(self.lm, **changes)
        self.file = folder / "network.safetensors"
        save_hypernetwork(self.file, network)
        self.config = config.model_copy(update={"hypernetwork": network.fingerprint})
        self.parts = EditorParts(ContextTemplates(), dict, self.file)

    def server(self, kind=CollabEditStrategy, **options: Any):
        model = describe(self.lm, LAYERS)
        common = {**SERVER, "hyperparameters": self.config.to_json()}
        common |= {"wire_dtype": "float64", "evaluate": False, **options}
        if kind is CollabEditStrategy:
            priors = solve_priors(self.lm, self.config, self.parts)
            return kind(model, priors, **common)
        return kind(model, **common)

    def merged(self, kind=CollabEditStrategy, num_rounds=2, **options: Any):
        server = self.server(kind, **options)
        grid = make_grid(self.lm, self.folder / "clients", hypernetwork=self.file)
        arrays = server.start(grid, num_rounds=num_rounds).arrays
        return read_deltas(arrays, server.model)

    def pooled(self, history: str = "none", num_rounds: int = 2) -> EditResult:
        editor = make_editor(self.lm, self.config, self.parts)
        edit: ModelEdit = ModelEdit(history=EditHistory(history))
        for number in range(num_rounds):
            own = [own[number] for own in ROUNDS if len(own) > number]
            requests = [case.request for cases in own for case in cases]
            edit = editor.edit(requests, start=edit)
        return edit


def moved_network(lm, **changes: Any) -> TrainedHypernetwork:
    """Return a network with random weights that has seen the cases."""
    weights = weight_shapes(lm, LAYERS)
    sizes = {"rank": 3, "initial_rate": 0.05, **changes}
    network = Hypernetwork(HypernetworkConfig(weights=weights, **sizes))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter += 0.1 * noise
    requests = [case.request for case in CASES]
    for name, pair in label_gradients(lm, list(weights), requests).items():
        network.observe(name, *pair)
    card = HypernetworkCard(
        model=lm.name,
        fingerprint=fingerprint(lm, LAYERS),
        layers=LAYERS,
        config=network.config,
        num_steps=1,
    )
    return TrainedHypernetwork(network, card)


def gap(found, expected) -> float:
    return max(float((found[n] - d).norm() / d.norm()) for n, d in expected.items())


@pytest.mark.parametrize(
    ("form", "history"),
    [
        ("factors", "none"),
        ("dense", "none"),
        ("factors", "dynamic-covariance"),
        ("dense", "d4s"),
    ],
)
def test_on_equal_terms_merged_is_pooled(form, history, tmp_path):
    federation = Federation(tmp_path)

    found = federation.merged(form=form, history=history)

    expected = federation.pooled(history).deltas
    assert gap(found, expected) < 1e-6  # the network's own arithmetic is float32
    assert all(one.norm() > 1e-3 for one in found.values())


def test_the_report_has_the_norm_of_what_is_to_be_put_out(tmp_path):
    federation = Federation(tmp_path)
    server = federation.server()
    grid = make_grid(federation.lm, tmp_path / "c", hypernetwork=federation.file)

    server.start(grid, num_rounds=1)

    editor = make_editor(federation.lm, federation.config, federation.parts)
    requests = [case.request for own in ROUNDS for case in own[0]]
    found = editor.measure(requests).values()
    expected = sum(float(one.square().sum()) for _, one in found) ** 0.5
    assert server.reports[-1].residual_norm_before == pytest.approx(expected, rel=1e-5)
    assert expected > 0


def test_several_rounds_without_history_are_not_one(tmp_path):
    federation = Federation(tmp_path)

    assert gap(federation.pooled("d4s").deltas, federation.pooled().deltas) > 1e-3


@pytest.mark.parametrize(
    ("config", "network"),
    [
        (MALMEN, {"reduction": "mean"}),
        (MALMEN.model_copy(update={"normalizer": "running"}), {}),
    ],
    ids=["mean-reduction", "running-statistics"],
)
def test_in_the_published_setup_it_is_not(config, network, tmp_path):
    federation = Federation(tmp_path, config, **network)

    found = federation.merged(num_rounds=1)

    assert gap(found, federation.pooled(num_rounds=1).deltas) > 0.02


def test_the_average_of_solved_deltas_is_not_either(tmp_path):
    federation = Federation(tmp_path)

    found = federation.merged(SimpleAverage, num_rounds=1)

    assert gap(found, federation.pooled(num_rounds=1).deltas) > 0.1


def test_mend_merges_by_task_arithmetic_into_the_pooled_edit(tmp_path):
    federation = Federation(
        tmp_path, MendConfig(layers=LAYERS), form="outer-product", num_blocks=1
    )

    found = federation.merged(TaskArithmetic)

    assert gap(found, federation.pooled().deltas) < 1e-6


def test_clients_with_another_network_are_left_out_by_name(tmp_path):
    federation = Federation(tmp_path)
    server = federation.server(exchange_timeout_s=20)
    other = tmp_path / "other.safetensors"
    save_hypernetwork(other, moved_network(federation.lm, initial_rate=0.06))
    grid = make_grid(federation.lm, tmp_path / "clients", hypernetwork=other)

    with pytest.raises(AggregationError, match="copy of one file"):
        server.start(grid, num_rounds=1)


def test_what_it_cannot_do_is_refused_before_any_work(tmp_path):
    federation = Federation(tmp_path)

    with pytest.raises(ConfigurationError, match="all layers on the same model"):
        federation.server(layer_schedule="synchronous")
    with pytest.raises(ConfigurationError, match="to write once"):
        federation.server(sweeps=2)
    with pytest.raises(ConfigurationError, match="no mediator vectors"):
        federation.server(FedEditStrategy, run_id="run")
    mend = {"hyperparameters": MendConfig(layers=LAYERS).to_json()}
    with pytest.raises(ConfigurationError, match="no function of sums"):
        federation.server(**mend)
