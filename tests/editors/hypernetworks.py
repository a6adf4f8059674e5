"""Hypernetworks for pico models: not trained, but not at their start either."""

import torch
from editing import REQUESTS

from flwr_collabedit.data.requests import EvaluationCase, Question
from flwr_collabedit.editors.hypernetwork import Hypernetwork
from flwr_collabedit.editors.hypernetwork_config import HypernetworkConfig
from flwr_collabedit.editors.hypernetwork_file import (
    HypernetworkCard,
    TrainedHypernetwork,
)
from flwr_collabedit.editors.label_gradients import label_gradients
from flwr_collabedit.models.fingerprint import fingerprint
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import weight_shapes

LAYERS = (0, 2)

CASES = tuple(
    EvaluationCase(
        request=request,
        paraphrase_prompts=(f"They say that {request.subject} is",),
        neighborhood=(Question(prompt="The river is", answer="long and old"),),
        same_subject=(Question(prompt=f"{request.subject} was", answer="there"),),
    )
    for request in REQUESTS
)


def moved_network(
    lm: LanguageModel, *, layers: tuple[int, ...] = LAYERS, **changes: object
) -> Hypernetwork:
    """Return a small network with random weights that has seen the requests."""
    weights = weight_shapes(lm, layers)
    config = HypernetworkConfig(
        weights=weights, **{"rank": 3, "initial_rate": 0.05, **changes}
    )
    network = Hypernetwork(config).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator).double()
            parameter += 0.1 * noise
    pairs = label_gradients(lm, list(weights), REQUESTS, tokens=config.tokens)
    for name, pair in pairs.items():
        network.observe(name, *pair)
    return network


def as_trained(
    lm: LanguageModel, network: Hypernetwork, num_steps: int = 1
) -> TrainedHypernetwork:
    """Return the network with a card for the model."""
    layers = tuple(
        layer
        for layer in range(lm.num_layers)
        if lm.weight_name(layer) in network.config.weights
    )
    card = HypernetworkCard(
        model=lm.name,
        fingerprint=fingerprint(lm, layers),
        layers=layers,
        config=network.config,
        num_steps=num_steps,
    )
    return TrainedHypernetwork(network, card)


def gradient_step(
    lm: LanguageModel, layers: tuple[int, ...], **changes: object
) -> TrainedHypernetwork:
    """Return a network as it is before its training, which goes down the gradient."""
    weights = weight_shapes(lm, layers)
    sizes = {"rank": 2, "initial_rate": 0.05, **changes}
    return as_trained(lm, Hypernetwork(HypernetworkConfig(weights=weights, **sizes)))
