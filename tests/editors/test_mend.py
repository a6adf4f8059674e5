"""MEND: its update, and that clients' updates add up."""

from dataclasses import replace

import pytest
import torch
from editing import REQUESTS, double_model
from hypernetworks import LAYERS, as_trained, moved_network

from flwr_collabedit.algebra.merging import task_arithmetic
from flwr_collabedit.editors.closed_forms import outer_product
from flwr_collabedit.editors.editor import ModelEdit
from flwr_collabedit.editors.label_gradients import label_gradients
from flwr_collabedit.editors.mend import MendEditor
from flwr_collabedit.editors.mend_config import MendConfig
from flwr_collabedit.errors import HypernetworkError
from flwr_collabedit.models.weights import applied_deltas

CONFIG = MendConfig(layers=LAYERS, rows_per_batch=3)


def network(lm, **changes):
    return moved_network(lm, form="outer-product", num_blocks=1, **changes)


def editor(lm, config=CONFIG, **changes):
    return MendEditor(lm, config, as_trained(lm, network(lm, **changes)))


@pytest.mark.parametrize("tokens", ["answer", "all"])
def test_the_update_is_the_sum_over_tokens_one_by_one(tokens):
    lm = double_model("gpt2")
    trained = network(lm, tokens=tokens)
    names = list(trained.config.weights)
    pairs = label_gradients(lm, names, REQUESTS, tokens=tokens)

    found = MendEditor(lm, CONFIG, as_trained(lm, trained)).edit(REQUESTS)

    for name, (keys, gradients) in pairs.items():
        expected = torch.zeros(len(gradients), len(keys), dtype=torch.float64)
        for j in range(keys.shape[1]):
            key, gradient = trained(name, keys[:, j : j + 1], gradients[:, j : j + 1])
            expected -= trained.rate(name) * gradient @ key.T
        torch.testing.assert_close(found.deltas[name], expected.detach())
        assert expected.abs().max() > 1e-3


def test_autograd_sees_through_it():
    lm = double_model("gpt2")
    trained = network(lm)
    (name, *_) = trained.config.weights
    keys, gradients = label_gradients(lm, [name], REQUESTS)[name]

    outer_product(trained, name, keys, gradients).square().sum().backward()

    assert trained.log_rates.grad is not None
    assert trained.log_rates.grad[0] != 0


def test_clients_updates_add_up_to_the_pooled_one():
    one = editor(double_model("llama"))
    parts = [one.edit(part).deltas for part in (REQUESTS[:1], REQUESTS[1:4])]
    parts.append(one.edit(REQUESTS[4:]).deltas)

    pooled = one.edit(REQUESTS).deltas

    for name, delta in pooled.items():
        merged = task_arithmetic([part[name] for part in parts])
        torch.testing.assert_close(merged, delta, rtol=1e-9, atol=1e-12)


def test_it_measures_on_what_earlier_edits_left():
    lm = double_model("gpt2")
    one = editor(lm)
    first = one.edit(REQUESTS[:2])

    second = one.edit(REQUESTS[2:], start=ModelEdit(first.deltas))

    with applied_deltas(lm, first.deltas):
        names = list(first.deltas)
        pairs = label_gradients(lm, names, REQUESTS[2:], rows_per_batch=3)
    for name, pair in pairs.items():
        step = outer_product(network(lm), name, *pair).detach()
        expected = first.deltas[name] + step
        torch.testing.assert_close(second.deltas[name], expected, rtol=1e-7, atol=1e-9)


def test_more_facts_than_it_was_trained_for_at_once_are_refused():
    lm = double_model("gpt2")
    trained = as_trained(lm, network(lm))
    few = trained.card.training.model_copy(update={"edits_per_step": 2})
    card = trained.card.model_copy(update={"training": few})
    one = MendEditor(lm, CONFIG, replace(trained, card=card))

    one.edit(REQUESTS[:2])
    with pytest.raises(HypernetworkError, match=r"at most 2 facts at once.*--batch 3"):
        one.edit(REQUESTS[:3])


def test_malmens_network_is_refused():
    lm = double_model("gpt2")

    with pytest.raises(HypernetworkError, match="least-squares"):
        MendEditor(lm, CONFIG, as_trained(lm, moved_network(lm)))


def test_another_network_than_the_servers_is_refused():
    lm = double_model("gpt2")
    other = CONFIG.model_copy(update={"hypernetwork": "0" * 64})

    with pytest.raises(HypernetworkError, match="000000000000"):
        editor(lm, other)
