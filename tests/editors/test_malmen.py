"""MALMEN: its update, its sums over clients, and what it leaves as it was."""

from dataclasses import replace

import pytest
import torch
from editing import REQUESTS, double_model
from hypernetworks import LAYERS, as_trained, moved_network

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.history import EditHistory
from flwr_collabedit.editors.closed_forms import FORMS
from flwr_collabedit.editors.editor import MeasuringEditor, ModelEdit
from flwr_collabedit.editors.label_gradients import label_gradients
from flwr_collabedit.editors.malmen import MalmenEditor
from flwr_collabedit.editors.malmen_config import MalmenConfig
from flwr_collabedit.errors import ConfigurationError, HypernetworkError
from flwr_collabedit.models.weights import applied_deltas

CONFIG = MalmenConfig(layers=LAYERS, rows_per_batch=3)
PARTS = REQUESTS[:2], REQUESTS[2:3], REQUESTS[3:]


def editor(lm, config=CONFIG, **changes):
    return MalmenEditor(lm, config, as_trained(lm, moved_network(lm, **changes)))


def sums(measured):
    return {name: EditStatistics.from_pairs(*pair) for name, pair in measured.items()}


def pooled_and_added(one):
    """Return, by weight, the sums of all requests, and those of clients added up."""
    pooled = sums(one.measure(REQUESTS))
    clients = [sums(one.measure(part)) for part in PARTS]
    return {
        name: (total, clients[0][name] + clients[1][name] + clients[2][name])
        for name, total in pooled.items()
    }


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("tokens", ["answer", "subject", "all"])
def test_the_edit_is_the_closed_form_that_is_trained(family, tokens):
    lm = double_model(family)
    network = moved_network(lm, tokens=tokens)
    names = list(network.config.weights)
    pairs = label_gradients(lm, names, REQUESTS, tokens=tokens)

    found = MalmenEditor(lm, CONFIG, as_trained(lm, network)).edit(REQUESTS)

    assert list(found.deltas) == names
    for name, delta in found.deltas.items():
        expected = FORMS["least-squares"](network, name, *pairs[name])
        torch.testing.assert_close(delta, expected.detach(), rtol=1e-7, atol=1e-10)
        assert delta.abs().max() > 1e-3


def test_sums_of_clients_are_those_of_all_edits():
    for total, added in pooled_and_added(editor(double_model("gpt2"))).values():
        torch.testing.assert_close(added.gram, total.gram, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(added.cross, total.cross, rtol=1e-9, atol=1e-12)


def test_with_the_mean_of_a_batch_they_are_not():
    """A client's gradients are larger by the tokens of all over its own."""
    lm = double_model("gpt2")
    one = editor(lm, MalmenConfig(layers=LAYERS, rows_per_batch=6), reduction="mean")

    for name, (total, added) in pooled_and_added(one).items():
        torch.testing.assert_close(added.gram, total.gram)
        assert (added.cross - total.cross).norm() > 0.05 * total.cross.norm()
        everyone = label_gradients(lm, [name], REQUESTS, reduction="mean")[name][1]
        first = label_gradients(lm, [name], PARTS[0], reduction="mean")[name][1]
        factor = everyone.shape[1] / first.shape[1]
        torch.testing.assert_close(first, factor * everyone[:, : first.shape[1]])
        assert factor > 2


def test_with_running_statistics_they_are_not():
    one = editor(
        double_model("gpt2"), MalmenConfig(layers=LAYERS, normalizer="running")
    )

    for total, added in pooled_and_added(one).values():
        torch.testing.assert_close(added.gram, total.gram)
        assert (added.cross - total.cross).norm() > 0.01 * total.cross.norm()


def test_running_statistics_do_not_outlive_an_edit():
    lm = double_model("gpt2")
    trained = as_trained(lm, moved_network(lm))
    before = trained.fingerprint
    one = MalmenEditor(lm, MalmenConfig(layers=LAYERS, normalizer="running"), trained)

    first = one.edit(REQUESTS).deltas
    one.edit(REQUESTS[:1])
    again = one.edit(REQUESTS).deltas

    assert all(torch.equal(again[name], first[name]) for name in first)
    assert trained.fingerprint == before
    frozen = MalmenEditor(lm, CONFIG, trained).edit(REQUESTS).deltas
    assert not any(torch.equal(frozen[name], first[name]) for name in first)


def test_a_later_edit_is_measured_on_the_model_it_starts_from():
    lm = double_model("gpt2")
    one = editor(lm)
    first = one.edit(REQUESTS[:3])

    second = one.edit(REQUESTS[3:], start=first)

    with applied_deltas(lm, first.deltas):
        expected = sums(one.measure(REQUESTS[3:]))
    priors = one.priors
    for name, delta in second.deltas.items():
        own = priors[name].update(expected[name])
        torch.testing.assert_close(delta, first.deltas[name] + own)


def test_d4s_gives_the_same_for_one_batch_and_for_two():
    lm = double_model("gpt2")
    one = editor(lm)
    start = ModelEdit(history=EditHistory("d4s"))

    first = one.edit(REQUESTS[:3], start=start)
    second = one.edit(REQUESTS[3:], start=first)

    together = one.edit(REQUESTS, start=start)
    for name, delta in together.deltas.items():
        torch.testing.assert_close(second.deltas[name], delta, rtol=1e-7, atol=1e-10)


def test_no_requests_change_nothing():
    lm = double_model("gpt2")
    one = editor(lm)
    start = ModelEdit({lm.weight_name(0): torch.ones(32, 64, dtype=torch.float64)})

    assert all(not delta.any() for delta in one.edit([]).deltas.values())
    kept = one.edit([], start=start).deltas
    assert torch.equal(kept[lm.weight_name(0)], start.deltas[lm.weight_name(0)])
    for keys, differences in one.measure([]).values():
        assert (keys.shape, differences.shape) == ((64, 0), (32, 0))


def test_the_model_and_the_hypernetwork_stay_as_they_are():
    lm = double_model("gpt2")
    before = {name: one.clone() for name, one in lm.model.named_parameters()}
    trained = as_trained(lm, moved_network(lm))
    fingerprint = trained.fingerprint
    seen: list[int] = []

    MalmenEditor(lm, CONFIG, trained).edit(REQUESTS, progress=seen.append)

    assert seen == [3, 6]
    assert trained.fingerprint == fingerprint
    assert all(torch.equal(p, before[n]) for n, p in lm.model.named_parameters())
    assert not any(module._forward_hooks for module in lm.model.modules())


def test_it_is_an_editor_that_measures():
    assert isinstance(editor(double_model("gpt2")), MeasuringEditor)


def test_a_hypernetwork_of_another_model_is_refused():
    trained = as_trained(double_model("gpt2"), moved_network(double_model("gpt2")))
    other = double_model("gpt2", seed=1)

    with pytest.raises(HypernetworkError, match="other weights"):
        MalmenEditor(other, CONFIG, trained)


def test_a_hypernetwork_of_other_layers_is_refused():
    lm = double_model("gpt2")
    trained = as_trained(lm, moved_network(lm))

    with pytest.raises(HypernetworkError, match=r"layers \(0, 1\), found .* \(0, 2\)"):
        MalmenEditor(lm, MalmenConfig(layers=(0, 1)), trained)


def test_an_untrained_hypernetwork_is_refused():
    lm = double_model("gpt2")
    trained = as_trained(lm, moved_network(lm), num_steps=0)

    with pytest.raises(HypernetworkError, match="after 0 steps"):
        MalmenEditor(lm, CONFIG, trained)


def test_a_hypernetwork_of_another_editor_is_refused():
    lm = double_model("gpt2")
    trained = as_trained(lm, moved_network(lm, form="outer-product"))

    with pytest.raises(HypernetworkError, match="found one for outer-product"):
        MalmenEditor(lm, CONFIG, trained)


def test_another_hypernetwork_than_the_configurations_is_refused():
    lm = double_model("gpt2")
    trained = as_trained(lm, moved_network(lm))
    same = MalmenConfig(layers=LAYERS, hypernetwork=trained.fingerprint)
    other = MalmenConfig(layers=LAYERS, hypernetwork=64 * "a")

    MalmenEditor(lm, same, trained)
    with pytest.raises(HypernetworkError, match="aaaaaaaaaaaa that the hyper"):
        MalmenEditor(lm, other, trained)


def test_a_fingerprint_that_is_none_is_refused():
    with pytest.raises(ConfigurationError, match="hypernetwork"):
        MalmenConfig.checked({"layers": (0,), "hypernetwork": "mine"}, "the test")


def test_more_facts_than_it_was_trained_for_at_once_are_refused():
    lm = double_model("gpt2")
    trained = as_trained(lm, moved_network(lm))
    few = trained.card.training.model_copy(update={"edits_per_step": 2})
    card = trained.card.model_copy(update={"training": few})
    one = MalmenEditor(lm, CONFIG, replace(trained, card=card))

    one.edit(REQUESTS[:2])
    for work in (one.edit, one.measure):
        with pytest.raises(HypernetworkError, match="at most 2 facts at once"):
            work(REQUESTS[:3])
