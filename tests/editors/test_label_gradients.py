"""Keys and output gradients of edits against plain autograd on the weights."""

import pytest
import torch
from editing import REQUESTS, double_model
from torch.nn.functional import cross_entropy

from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.label_gradients import label_gradients
from flwr_collabedit.errors import NonFiniteOutputError, RequestFormatError
from flwr_collabedit.models.tokens import tokenize
from flwr_collabedit.models.weights import read_weight

FAMILIES = ("gpt2", "llama", "phi", "gpt_neox")


def texts(lm, requests=REQUESTS):
    return [
        tokenize(lm.tokenizer, one.prompt, subject=one.subject, target=one.target_new)
        for one in requests
    ]


def one_loss(lm, text):
    """Return the loss of one text, read whole, without any padding."""
    ids = torch.tensor([text.input_ids])
    logits = lm.model(input_ids=ids, use_cache=False).logits[0]
    predicting = logits[text.target_start - 1 : -1]
    return cross_entropy(predicting, ids[0, text.target_start :], reduction="sum")


def weight_gradients(lm, names, loss):
    """Return the gradient in each weight, ``(d_value, d_key)``, by autograd on it."""
    weights = [lm.model.get_parameter(name) for name in names]
    for weight in weights:
        weight.requires_grad_(True)
    found = torch.autograd.grad(loss(), weights)
    for weight in weights:
        weight.requires_grad_(False)
    is_transposed = lm.architecture.family == "gpt2"
    return [one.T if is_transposed else one for one in found]


@pytest.mark.parametrize("family", FAMILIES)
def test_factors_of_all_tokens_make_the_gradient_of_the_weights(family):
    lm = double_model(family)
    names = [lm.weight_name(layer) for layer in (0, 1, 2)]
    expected = weight_gradients(
        lm, names, lambda: sum(one_loss(lm, text) for text in texts(lm))
    )

    found = label_gradients(lm, names, REQUESTS, tokens="all", rows_per_batch=4)

    for name, gradient in zip(names, expected, strict=True):
        keys, gradients = found[name]
        torch.testing.assert_close(gradients @ keys.T, gradient, rtol=1e-8, atol=1e-10)


def test_above_the_last_attention_only_answer_tokens_have_a_gradient():
    lm = double_model("gpt2")
    name = lm.weight_name(lm.num_layers - 1)

    everywhere = label_gradients(lm, [name], REQUESTS, tokens="all")[name]
    answers = label_gradients(lm, [name], REQUESTS)[name]

    assert answers[0].shape[1] == sum(len(text.target_ids) for text in texts(lm))
    assert everywhere[0].shape[1] == sum(len(t.input_ids) - 1 for t in texts(lm))
    torch.testing.assert_close(
        answers[1] @ answers[0].T, everywhere[1] @ everywhere[0].T
    )
    kept = everywhere[1].norm(dim=0) > 0
    torch.testing.assert_close(everywhere[0][:, kept], answers[0])


@pytest.mark.parametrize("tokens", ["answer", "subject"])
def test_they_are_columns_of_all_tokens(tokens):
    lm = double_model("llama")
    name = lm.weight_name(0)
    everywhere = label_gradients(lm, [name], REQUESTS, tokens="all")[name]
    columns, start = [], 0
    for text in texts(lm):
        end = len(text.input_ids) - 1
        span = [text.subject_last]
        if tokens == "answer":
            span = range(text.target_start - 1, end)
        columns += [start + position for position in span]
        start += end

    found = label_gradients(lm, [name], REQUESTS, tokens=tokens)[name]

    for one, whole in zip(found, everywhere, strict=True):
        torch.testing.assert_close(one, whole[:, columns])


def test_a_sum_makes_every_edit_independent_of_the_others():
    lm = double_model("gpt2")
    name = lm.weight_name(1)
    together = label_gradients(lm, [name], REQUESTS)[name]

    apart = [label_gradients(lm, [name], [request])[name] for request in REQUESTS]

    for index in range(2):
        joined = torch.cat([pair[index] for pair in apart], 1)
        torch.testing.assert_close(together[index], joined, rtol=1e-9, atol=1e-12)


def test_a_mean_divides_by_the_answer_tokens_of_each_batch():
    lm = double_model("gpt2")
    name = lm.weight_name(1)
    lengths = [len(text.target_ids) for text in texts(lm)]
    keys, summed = label_gradients(lm, [name], REQUESTS)[name]

    same, mean = label_gradients(
        lm, [name], REQUESTS, reduction="mean", rows_per_batch=4
    )[name]

    first, second = sum(lengths[:4]), sum(lengths[4:])
    factors = torch.tensor([1 / first] * first + [1 / second] * second)
    assert len(set(lengths)) > 1
    torch.testing.assert_close(same, keys)
    torch.testing.assert_close(mean, summed * factors, rtol=1e-6, atol=1e-12)


def test_the_model_stays_as_it_is():
    lm = double_model("gpt2")
    before = {name: one.clone() for name, one in lm.model.named_parameters()}
    seen: list[int] = []

    label_gradients(
        lm, [lm.weight_name(1)], REQUESTS, rows_per_batch=4, progress=seen.append
    )

    assert seen == [4, 6]
    for name, parameter in lm.model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert not parameter.requires_grad
        assert parameter.grad is None
    assert not any(module._forward_hooks for module in lm.model.modules())
    assert not any(module._forward_pre_hooks for module in lm.model.modules())


def test_without_requests_there_are_no_columns():
    lm = double_model("gpt2")
    names = [lm.weight_name(0), lm.weight_name(2)]

    for tokens in ("answer", "subject", "all"):
        found = label_gradients(lm, names, [], tokens=tokens)
        d_value, d_key = read_weight(lm.model, names[0]).shape
        assert list(found) == names
        for keys, gradients in found.values():
            assert (keys.shape, gradients.shape) == ((d_key, 0), (d_value, 0))


def test_a_text_longer_than_the_context_is_named():
    lm = double_model("gpt2")
    long = EditRequest(
        case_id="long", prompt="{} " + "is " * 200, subject="I", target_new="a"
    )

    with pytest.raises(RequestFormatError, match=r"Case 'long'.*at most 128"):
        label_gradients(lm, [lm.weight_name(0)], [long])


def test_a_destroyed_model_is_named():
    lm = double_model("gpt2")
    lm.model.get_parameter(lm.weight_name(1))[0, 0] = float("nan")

    with pytest.raises(NonFiniteOutputError, match="found nan"):
        label_gradients(lm, [lm.weight_name(0)], REQUESTS)
    assert not any(module._forward_hooks for module in lm.model.modules())
