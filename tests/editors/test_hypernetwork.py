"""The hypernetwork's map, its statistics and the update, against loops over tokens."""

import math

import pytest
import torch
from editing import REQUESTS, double_model
from hypernetworks import LAYERS, as_trained, moved_network

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.editors.closed_forms import FORMS
from flwr_collabedit.editors.hypernetwork import Hypernetwork, RunningNormalizer
from flwr_collabedit.editors.hypernetwork_config import HypernetworkConfig
from flwr_collabedit.editors.label_gradients import label_gradients

WEIGHTS = {"a.weight": (2, 3), "b.weight": (4, 3), "c.weight": (2, 3)}


def test_the_normalizer_has_mean_and_deviation_of_all_it_saw():
    rows = torch.randn(20, 5, dtype=torch.float64) * 3 + 7
    normalizer = RunningNormalizer(5, 2)

    for part in rows.split([1, 4, 0, 15]):
        normalizer.update(part, 1)

    expected = (rows - rows.mean(0)) / rows.std(0)
    torch.testing.assert_close(normalizer(rows, 1), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(normalizer(rows, 0), rows)  # it has seen nothing


def test_before_training_it_is_the_normalizer():
    network = Hypernetwork(HypernetworkConfig(weights=WEIGHTS, rank=2))
    keys, gradients = torch.randn(3, 9), torch.randn(2, 9)
    network.observe("a.weight", keys, gradients)

    mapped = network("a.weight", keys, gradients)

    for found, given in zip(mapped, (keys, gradients), strict=True):
        whole = (given - given.mean(1, keepdim=True)) / given.std(1, keepdim=True)
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)


def test_weights_of_one_shape_share_blocks_but_nothing_else():
    network = Hypernetwork(HypernetworkConfig(weights=WEIGHTS, rank=2))

    assert {name: len(net.blocks) for name, net in network.nets.items()} == {
        "2x3": 2,
        "4x3": 2,
    }
    block = network.nets["2x3"].blocks[0]
    assert block.first.shape == (2, 5)
    assert block.scales.shape == block.shifts.shape == (2, 5)
    with torch.no_grad():
        block.shifts[1] += 1.0
    keys, gradients = torch.randn(3, 1), torch.randn(2, 1)
    first, third = (
        network("a.weight", keys, gradients),
        network("c.weight", keys, gradients),
    )
    torch.testing.assert_close(third[0], first[0] + 1)


def plain_block(block, index, hidden):
    inner = block.second @ (block.first @ hidden) + block.bias
    return hidden + block.scales[index] * torch.relu(inner) + block.shifts[index]


def test_the_update_is_that_of_a_loop_over_tokens():
    lm = double_model("gpt2")
    network = moved_network(lm)
    names = [lm.weight_name(layer) for layer in LAYERS]
    pairs = label_gradients(lm, names, REQUESTS)

    for index, name in enumerate(names):
        keys, gradients = pairs[name]
        [net] = network.nets.values()
        rate = math.exp(network.log_rates[index].item())
        ridge = math.exp(network.log_ridges[index].item())
        system = ridge * torch.eye(len(keys), dtype=torch.float64)
        cross = torch.zeros(len(gradients), len(keys), dtype=torch.float64)
        seen = torch.cat([keys, gradients]).T
        for key, gradient in zip(keys.T, gradients.T, strict=True):
            hidden = torch.cat([key, gradient])
            hidden = (hidden - seen.mean(0)) / (seen.std(0) + 1e-7)
            for block in net.blocks:
                hidden = plain_block(block, index, hidden)
            mapped_key, mapped_gradient = hidden[: len(key)], hidden[len(key) :]
            difference = -rate * (key @ mapped_key) * mapped_gradient
            system += torch.outer(key, key)
            cross += torch.outer(difference, key)
        expected = cross @ torch.linalg.inv(system)

        found = FORMS["least-squares"](network, name, keys, gradients)

        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-10)


def test_the_update_is_that_of_the_prior_a_server_merges_with():
    lm = double_model("gpt2")
    network = moved_network(lm)
    name = lm.weight_name(LAYERS[1])
    keys, gradients = label_gradients(lm, [name], REQUESTS)[name]
    differences = network.value_differences(name, keys, gradients)
    statistics = EditStatistics.from_pairs(keys, differences.detach())

    merged = as_trained(lm, network).priors()[name].update(statistics)

    alone = FORMS["least-squares"](network, name, keys, gradients)
    torch.testing.assert_close(alone, merged)


@pytest.mark.parametrize("what", ["log_rates", "log_ridges"])
def test_rates_and_ridges_are_positive_whatever_is_trained(what):
    network = Hypernetwork(HypernetworkConfig(weights=WEIGHTS, initial_rate=0.5))
    assert network.rate("b.weight").item() == pytest.approx(0.5)
    assert network.ridge("b.weight").item() == 1.0
    with torch.no_grad():
        getattr(network, what)[1] -= 20

    assert network.rate("b.weight").item() > 0
    assert network.ridge("b.weight").item() > 0
    assert network.rate("a.weight").item() == pytest.approx(0.5)
