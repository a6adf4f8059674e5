"""Training: its gradient against plain autograd, its batches, its checkpoints."""

import pytest
import torch
from editing import REQUESTS, double_model
from hypernetworks import CASES, LAYERS, moved_network
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from flwr_collabedit.editors import hypernetwork_training
from flwr_collabedit.editors.closed_forms import FORMS
from flwr_collabedit.editors.hypernetwork_config import (
    HypernetworkConfig,
    TrainingConfig,
)
from flwr_collabedit.editors.hypernetwork_data import EditGradients, MetaBatches
from flwr_collabedit.editors.hypernetwork_file import save_hypernetwork
from flwr_collabedit.editors.hypernetwork_training import HypernetworkTraining
from flwr_collabedit.editors.label_gradients import LabelRow, label_gradients
from flwr_collabedit.editors.meta_step import meta_backward, with_updates
from flwr_collabedit.errors import ConfigurationError, HypernetworkError
from flwr_collabedit.models.tokens import tokenize
from flwr_collabedit.models.weights import applied_deltas, weight_shapes


def settings(num_edits=3, num_asked=3, **changes):
    given = {"num_steps": 6, "edits_per_step": num_edits, "asked_per_step": num_asked}
    return TrainingConfig(**{**given, **changes})


TRAINING = settings(4, 2)


def straight_loss(lm, network, batch, locality_weight):
    """Return the loss of a batch with the graph of everything, text by text."""
    form = FORMS[network.config.form]
    names = list(network.config.weights)
    pairs = label_gradients(lm, names, batch.requests, tokens=network.config.tokens)
    weights = {
        name: lm.model.get_parameter(name) + form(network, name, *pairs[name]).T
        for name in names
    }

    def predicting(row: LabelRow, changed):
        ids = {"input_ids": torch.tensor([row.input_ids]), "use_cache": False}
        logits = functional_call(lm.model, changed, kwargs=ids).logits[0]
        return logits[list(row.reads)].log_softmax(-1)

    wanted = [
        cross_entropy(
            predicting(row, weights), torch.tensor(row.target_ids), reduction="none"
        )
        for row in batch.wanted
    ]
    kept = []
    for row in batch.kept:
        base, now = predicting(row, {}), predicting(row, weights)
        kept.append((base.exp() * (base - now)).sum(-1))
    return torch.cat(wanted).mean(), locality_weight * torch.cat(kept).mean()


@pytest.mark.parametrize("tokens", ["answer", "subject", "all"])
def test_two_stages_give_the_gradient_of_one(tokens):
    lm = double_model("gpt2")
    batch = MetaBatches(lm, CASES, settings(5, 4)).batch(0)
    once, twice = (moved_network(lm, tokens=tokens) for _ in range(2))
    pairs = label_gradients(
        lm, list(once.config.weights), batch.requests, tokens=tokens
    )
    wanted, kept = straight_loss(lm, once, batch, 0.3)
    (wanted + kept).backward()

    loss = meta_backward(lm, twice, pairs, batch, locality_weight=0.3, rows_per_batch=3)

    assert loss.wanted == pytest.approx(wanted.item())
    assert 0.3 * loss.kept == pytest.approx(kept.item())
    assert loss.kept > 1e-3
    for (name, one), two in zip(
        once.named_parameters(), twice.parameters(), strict=True
    ):
        assert one.grad.abs().max() > 0, name
        torch.testing.assert_close(two.grad, one.grad, rtol=1e-6, atol=1e-9)


def test_updates_that_autograd_sees_act_like_those_that_are_written():
    lm = double_model("llama")
    weights = weight_shapes(lm, (0, 1, 2))
    updates = {
        name: 0.05 * torch.randn(shape).double() for name, shape in weights.items()
    }
    ids = torch.tensor([[5, 8, 13, 21]])
    before = lm.model(ids).logits
    with applied_deltas(lm, updates):
        written = lm.model(ids).logits

    with with_updates(lm, updates):
        acting = lm.model(ids).logits

    torch.testing.assert_close(acting, written)
    assert (written - before).abs().max() > 1e-3
    assert torch.equal(lm.model(ids).logits, before)


def test_a_batch_asks_for_its_edits_and_for_what_they_are_to_leave():
    lm = double_model("gpt2")

    batch = MetaBatches(lm, CASES, settings(kept_per_edit=1, seed=5)).batch(2)

    def row(prompt, answer):
        return LabelRow.of(tokenize(lm.tokenizer, prompt, target=answer))

    cases = {case.request.case_id: case for case in CASES}
    drawn = [cases[request.case_id] for request in batch.requests]
    assert len({request.subject for request in batch.requests}) == 3
    assert batch.wanted == tuple(
        row(prompt, case.request.target_new)
        for case in drawn
        for prompt in (case.rewrite_prompt, *case.paraphrase_prompts)
    )
    for case, kept in zip(drawn, batch.kept, strict=True):
        questions = (*case.neighborhood, *case.same_subject)
        assert kept in [row(asked.prompt, asked.answer) for asked in questions]


def test_a_batch_depends_on_seed_and_step_only():
    lm = double_model("gpt2")
    batches, same = (MetaBatches(lm, CASES, settings()) for _ in range(2))
    batches.batch(0)

    assert batches.batch(7) == same.batch(7) != same.batch(8)
    assert MetaBatches(lm, CASES, settings(seed=1)).batch(7) != same.batch(7)


def test_the_number_of_edits_varies_and_some_are_asked_about():
    lm = double_model("gpt2")
    batches = MetaBatches(lm, CASES, settings(6, 2, kept_per_edit=1))
    drawn = [batches.batch(step) for step in range(40)]

    assert {len(one.requests) for one in drawn} == {2, 3, 4, 5, 6}
    assert all(len({r.subject for r in one.requests}) > 1 for one in drawn)
    assert all((len(one.wanted), len(one.kept)) == (4, 2) for one in drawn)


@pytest.mark.parametrize("tokens", ["answer", "subject", "all"])
@pytest.mark.parametrize("max_bytes", [0, 2**30])
def test_gradients_that_are_kept_are_those_that_are_read(tokens, max_bytes):
    lm = double_model("gpt2")
    config = HypernetworkConfig(weights=weight_shapes(lm, LAYERS), tokens=tokens)
    gradients = EditGradients(lm, config, CASES * 2, max_bytes=max_bytes)
    asked = [REQUESTS[4], REQUESTS[1]]

    found = gradients(asked)

    expected = label_gradients(lm, list(config.weights), asked, tokens=tokens)
    for name, pair in expected.items():
        for one, other in zip(found[name], pair, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert ("_all" in vars(gradients)) == bool(max_bytes)


def test_what_is_edited_is_not_asked_to_stay():
    lm = double_model("gpt2")
    asked = (
        CASES[0].neighborhood[0].model_copy(update={"prompt": CASES[1].rewrite_prompt})
    )
    cases = [
        CASES[0].model_copy(update={"neighborhood": (asked,), "same_subject": ()}),
        CASES[1],
    ]

    batch = MetaBatches(lm, cases, settings(2, 2, kept_per_edit=5)).batch(0)

    assert len(batch.kept) == len(CASES[1].neighborhood + CASES[1].same_subject)


def training(lm, config=TRAINING, cases=CASES, **changes):
    sizes = {"rank": 2, "initial_rate": 0.01, **changes}
    network = HypernetworkConfig(weights=weight_shapes(lm, LAYERS), **sizes)
    return HypernetworkTraining(lm, LAYERS, cases, network, config)


def test_training_lowers_the_loss():
    lm = double_model("gpt2")
    rates = {"learning_rate": 0.02, "scalar_learning_rate": 0.2}
    config = settings(6, 6, num_steps=12, kept_per_edit=1, **rates)
    one = training(lm, config, initial_rate=0.05)

    losses = [one.step() for _ in range(12)]

    first, last = losses[0], losses[-1]
    assert last.wanted + last.kept < 0.95 * (first.wanted + first.kept)


def test_step_sizes_fall_to_nothing_in_the_second_half():
    one = training(double_model("gpt2"), settings(num_steps=8))
    rates = []
    for _ in range(8):
        one.step()
        rates.append([group["lr"] for group in one._adam.param_groups])

    shares = [1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    for share, found in zip(shares, rates, strict=True):
        assert found == pytest.approx([share * 1e-3, share * 1e-2])


@pytest.mark.parametrize("inside", [False, True])
def test_an_interrupted_training_gives_the_bytes_of_one_that_was_not(
    tmp_path, monkeypatch, inside
):
    stopped_at = 4
    lm = double_model("gpt2")
    whole, halted, resumed = (training(lm) for _ in range(3))
    save_hypernetwork(tmp_path / "whole", whole.run())

    def interrupt(done, of):
        if done == stopped_at:
            if not inside:
                raise KeyboardInterrupt
            patch.setattr(hypernetwork_training, "meta_backward", half_way)

    def half_way(*given, **options):
        meta_backward(*given, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        halted.run(tmp_path / "half", progress=interrupt)
    resumed.resume(tmp_path / "half")
    assert resumed.num_steps == stopped_at
    save_hypernetwork(tmp_path / "resumed", resumed.run())

    assert (tmp_path / "resumed").read_bytes() == (tmp_path / "whole").read_bytes()
    assert resumed.result.fingerprint == whole.result.fingerprint


def test_the_model_stays_as_it_is():
    lm = double_model("gpt2")
    before = {name: one.clone() for name, one in lm.model.named_parameters()}
    seen = []

    result = training(lm).run(progress=lambda *done: seen.append(done))

    assert seen == [(done, 6) for done in range(1, 7)]
    assert result.card.num_steps == 6
    assert all(torch.equal(p, before[n]) for n, p in lm.model.named_parameters())
    assert all(p.grad is None for p in lm.model.parameters())
    assert not any(module._forward_hooks for module in lm.model.modules())


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (lambda lm: training(lm, rank=3), "with config"),
        (lambda lm: training(lm, TRAINING.model_copy(update={"seed": 1})), "training"),
        (lambda lm: training(lm, cases=CASES[:5]), "with data"),
        (lambda _: training(double_model("gpt2", seed=1)), "with fingerprint"),
    ],
)
def test_a_training_of_something_else_is_not_resumed(tmp_path, other, named):
    lm = double_model("gpt2")
    one = training(lm)
    one.step()
    one.save(tmp_path / "half")

    with pytest.raises(HypernetworkError, match=named):
        other(lm).resume(tmp_path / "half")


def test_too_few_subjects_are_refused():
    with pytest.raises(ConfigurationError, match=r"at least 7 subjects.*found 6"):
        MetaBatches(double_model("gpt2"), CASES, settings(len(REQUESTS) + 1))


def test_facts_without_anything_to_keep_are_refused():
    bare = [
        case.model_copy(update={"neighborhood": (), "same_subject": ()})
        for case in CASES
    ]
    with pytest.raises(ConfigurationError, match="leave alone"):
        MetaBatches(double_model("gpt2"), bare, settings())
