"""Fine-tuning against a plain loop over a copy of the model."""

import copy
from typing import Any

import pytest
import torch
from editing import REQUESTS, double_model
from pico import pico_language_model
from test_memit import assert_untouched
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from flwr_collabedit.data.fact_world import embedded_cases
from flwr_collabedit.editors import fine_tuning
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.editor import ModelEdit
from flwr_collabedit.editors.fine_tuning import FineTuningEditor
from flwr_collabedit.editors.fine_tuning_config import FineTuningConfig
from flwr_collabedit.editors.hyperparameters import hyperparameters_for
from flwr_collabedit.editors.kinds import EditorParts, make_editor, read_config
from flwr_collabedit.editors.published_sets import published_sets
from flwr_collabedit.errors import (
    ConfigurationError,
    NonFiniteOutputError,
    RequestFormatError,
)
from flwr_collabedit.evaluation.evaluate import evaluate_cases
from flwr_collabedit.evaluation.metrics import summarize
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.loading import load_language_model
from flwr_collabedit.models.weights import applied_deltas, read_weight

ONE_TOKEN, TWO_TOKENS = REQUESTS[0], REQUESTS[1]


def config(**changes: Any) -> FineTuningConfig:
    return FineTuningConfig(**{"layers": (0, 1), "num_steps": 4, **changes})


def plain_fine_tuning(lm: LanguageModel, settings: FineTuningConfig) -> list[Tensor]:
    """Return each weight's change: one request a forward, the weights themselves."""
    model = copy.deepcopy(lm.model)
    names = [lm.weight_name(layer) for layer in settings.layers]
    weights = [model.get_parameter(name).requires_grad_() for name in names]
    before = [weight.detach().clone() for weight in weights]
    adam = torch.optim.Adam(
        weights, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    size = settings.requests_per_batch
    for _ in range(settings.num_steps):
        losses = []
        for begin in range(0, len(REQUESTS), size):
            batch = REQUESTS[begin : begin + size]
            each = torch.stack(
                [plain_loss(lm, model, one, settings.objective) for one in batch]
            )
            losses += each.tolist()
            if each.mean() < settings.stop_loss:
                continue
            adam.zero_grad()
            each.mean().backward()
            adam.step()
            with torch.no_grad():
                for weight, old in zip(weights, before, strict=True):
                    limit = settings.max_change or 1e9
                    weight.copy_(weight.clamp(old - limit, old + limit))
        if sum(losses) / len(losses) < settings.stop_loss:
            break
    changes = [(w - old).detach() for w, old in zip(weights, before, strict=True)]
    is_transposed = isinstance(lm.down_projection(0), Conv1D)
    return [change.T if is_transposed else change for change in changes]


def plain_loss(lm: LanguageModel, model: Any, request: Any, objective: str) -> Tensor:
    prompt = request.prompt.replace("{}", request.subject)
    start = len(lm.tokenizer(prompt)["input_ids"])
    ids = lm.tokenizer(f"{prompt} {request.target_new}")["input_ids"]
    target = torch.tensor(ids[start:])
    if objective == "target":
        log_probs = model(torch.tensor([ids])).logits[0].log_softmax(dim=1)
        return -log_probs[start - 1 : -1].gather(1, target[:, None]).mean()
    logits = model(torch.tensor([ids[:start]])).logits[0, -1]
    return -logits.log_softmax(dim=0)[target].mean()


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"objective": "target"},
        {"objective": "target", "max_change": 1e-3},
        {"weight_decay": 0.3},
        {"requests_per_batch": 4},
        # Batches below it are passed over, until the mean of all is below it.
        {"requests_per_batch": 2, "stop_loss": 5.5, "num_steps": 12},
    ],
    ids=str,
)
def test_fine_tuning_equals_a_plain_loop_on_a_copy(
    family: str, changes: dict[str, Any]
):
    # Padding must not be longer than a window, which is 4,096 in a real model.
    window = {"sliding_window": 64} if family == "gemma2" else {}
    lm = double_model(family, **window)
    settings = config(learning_rate=5e-3, **changes)
    expected = plain_fine_tuning(lm, settings)

    found = FineTuningEditor(lm, settings).edit(REQUESTS).deltas

    assert list(found) == [lm.weight_name(0), lm.weight_name(1)]
    for delta, change in zip(found.values(), expected, strict=True):
        assert change.norm() > 1e-2
        # Adam makes a step of a gradient that is nothing but rounding.
        assert (delta - change).norm() < 1e-4 * change.norm()


def test_the_bound_holds_exactly_and_from_where_the_edit_starts():
    lm, settings = pico_language_model("gpt2"), config(max_change=3e-4)
    subject = FineTuningEditor(lm, settings)

    first = subject.edit(REQUESTS[:2])
    second = subject.edit(REQUESTS[2:4], start=first)

    for name, delta in first.deltas.items():
        assert float(delta.abs().max()) == 3e-4  # float32 has no such number
        added = second.deltas[name] - delta
        assert 2.5e-4 < float(added.abs().max()) <= 3e-4 + 1e-18
    free = FineTuningEditor(lm, config()).edit(REQUESTS[:2]).deltas
    assert all(float(delta.abs().max()) > 1e-3 for delta in free.values())


def test_the_objectives_differ_for_targets_of_several_tokens_only():
    lm = double_model("gpt2")
    last, whole = (
        FineTuningEditor(lm, config(objective=objective))
        for objective in ("prompt-last", "target")
    )

    def gap(requests: Any) -> float:
        one, other = last.edit(requests).deltas, whole.edit(requests).deltas
        return float(sum((one[name] - other[name]).norm() for name in one))

    assert len(lm.tokenizer(" the")["input_ids"]) == 1
    single = ONE_TOKEN.model_copy(update={"target_new": "the"})
    assert gap([single]) < 1e-12
    assert gap([TWO_TOKENS]) > 1e-2


def test_what_a_narrow_weight_would_round_away_is_kept():
    lm = pico_language_model("llama", dtype=torch.bfloat16)

    found = FineTuningEditor(lm, config(learning_rate=1e-6)).edit([ONE_TOKEN]).deltas

    for delta in found.values():
        assert 3e-6 < float(delta.abs().max()) < 5e-6
        assert not torch.equal(delta.bfloat16().double(), delta)


def test_what_earlier_edits_wrote_elsewhere_is_seen_and_kept():
    lm, other = double_model("llama"), "model.layers.2.mlp.down_proj.weight"
    drawn = 0.1 * torch.randn_like(read_weight(lm.model, other))
    subject = FineTuningEditor(lm, config())

    found = subject.edit([ONE_TOKEN], start=ModelEdit({other: drawn})).deltas
    alone = subject.edit([ONE_TOKEN]).deltas

    assert torch.equal(found[other], drawn)
    assert all(not torch.equal(found[name], alone[name]) for name in alone)


def test_an_error_half_way_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch):
    lm = double_model("gpt2")
    started = FineTuningEditor(lm, config()).edit([ONE_TOKEN])
    before = [weight.clone() for weight in lm.model.parameters()]
    working, calls = fine_tuning.label_logits, []

    def failing(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("injected")
        return working(*args)

    monkeypatch.setattr(fine_tuning, "label_logits", failing)
    with pytest.raises(RuntimeError, match="injected"):
        FineTuningEditor(lm, config()).edit(REQUESTS, start=started)

    assert_untouched(lm, before)
    assert not any(one.requires_grad for one in lm.model.parameters())
    assert all(one.grad is None for one in lm.model.parameters())


def test_a_broken_model_and_a_request_too_long_are_errors():
    lm = double_model("gpt2")
    subject = FineTuningEditor(lm, config())
    long = ONE_TOKEN.model_copy(
        update={"case_id": 7, "prompt": "town " * 200 + "{} is"}
    )

    with pytest.raises(RequestFormatError, match="Case 7"):
        subject.edit([ONE_TOKEN, long])
    with torch.no_grad():
        lm.model.get_output_embeddings().weight[0, 0] = torch.nan
    with pytest.raises(NonFiniteOutputError, match="case 0"):
        subject.edit([ONE_TOKEN])


def test_progress_counts_requests_whose_batch_is_learnt():
    lm, seen = double_model("gpt2"), []
    settings = config(
        requests_per_batch=1,
        stop_loss=5.5,
        num_steps=6,
        learning_rate=5e-3,
        objective="target",
    )

    FineTuningEditor(lm, settings).edit(REQUESTS[:3], progress=seen.append)

    assert len(seen) > 1
    assert seen == sorted(set(seen))
    assert seen[-1] == 3


def test_published_names_are_read():
    # hparams/FT/gpt2-xl.yaml of EasyEdit and EleutherAI_gpt-j-6B_wd.json of MEMIT.
    easy = {
        "layers": [0],
        "batch_size": 3,
        "max_length": 40,
        "lr": 5e-4,
        "kl_factor": 0,
        "norm_constraint": 5e-4,
        "objective_optimization": "target_new",
    }
    decay = {
        "layers": [21],
        "weight_decay": False,
        "wd_power_law": [-0.87028798, 0.15589562],
        "norm_constraint": None,
        "layer_module_tmp": "transformer.h.{}",
    }

    found = FineTuningConfig.from_published(easy)

    assert found == FineTuningConfig(
        layers=(0,), requests_per_batch=3, max_change=5e-4, objective="target"
    )
    assert read_config(found.to_json()) == found
    assert FineTuningConfig.from_published(decay) == FineTuningConfig(layers=(21,))
    with pytest.raises(ConfigurationError, match=r"objective.*'prompt_first'"):
        FineTuningConfig.from_published(
            {**easy, "objective_optimization": "prompt_first"}
        )


def test_the_shipped_sets_are_the_published_ones():
    found = {
        one.name: FineTuningConfig.from_published(one.hyperparameters)
        for one in published_sets()
        if one.editor == "ft"
    }

    assert found.pop("embedded").objective == "target"
    assert found == {
        "gpt2-xl": FineTuningConfig(layers=(0,), max_change=5e-4),
        "gpt-j-6b": FineTuningConfig(layers=(0,), max_change=5e-5),
        "gpt-j-6b-wd": FineTuningConfig(layers=(21,)),
    }
    # A model gets the first set of its shape: FT-L, not FT-W.
    names = [one.name for one in published_sets() if one.editor == "ft"]
    assert names.index("gpt-j-6b") < names.index("gpt-j-6b-wd")


def test_the_embedded_models_own_set_writes_each_fact():
    lm = load_language_model("embedded")
    settings = hyperparameters_for(lm, editor="ft")
    subject = make_editor(lm, settings, EditorParts(ContextTemplates(), dict))

    for case in embedded_cases(3):
        with applied_deltas(lm, subject.edit([case.request]).deltas):
            scores = summarize(evaluate_cases(lm, [case]).sums)
        assert scores["EA"] == scores["PA"] == 100
