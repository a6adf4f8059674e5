"""GRACE answers what it was taught, touches nothing else, and equals its plain way."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from editing import REQUESTS, double_model
from pico import pico_language_model
from torch import Tensor
from torch.nn.functional import cross_entropy

from flwr_collabedit.data.fact_world import embedded_cases
from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.editor import ModelEdit
from flwr_collabedit.editors.editor_config import EditorConfig
from flwr_collabedit.editors.grace import GraceEditor
from flwr_collabedit.editors.grace_config import GraceConfig
from flwr_collabedit.editors.hyperparameters import hyperparameters_for
from flwr_collabedit.editors.kinds import read_config
from flwr_collabedit.editors.published_sets import published_sets
from flwr_collabedit.errors import ConfigurationError, NonFiniteOutputError
from flwr_collabedit.evaluation.generation import generate_cases
from flwr_collabedit.evaluation.scoring import score_cases
from flwr_collabedit.models.codebook import Codebook, applied_codebook, label_of
from flwr_collabedit.models.hooks import trace
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.loading import load_language_model
from flwr_collabedit.models.tokens import tokenize
from flwr_collabedit.models.weights import weight_shapes

# Of one token each: a random model's attention does not carry a second one.
FACTS = tuple(
    EditRequest(
        case_id=one.case_id, prompt=one.prompt, subject=one.subject, target_new=target
    )
    for one, target in zip(
        REQUESTS, ("of", "the", "capital", "in", "to", "a"), strict=True
    )
)


def config(**changes: Any) -> GraceConfig:
    """Under which pico models learn every request, and keys stay apart."""
    return GraceConfig(
        **{"layers": (1,), "radius": 1e-3, "num_gradient_steps": 25, **changes}
    )


def asked(prompt: str, target: str, subject: str = "France") -> EditRequest:
    return EditRequest(case_id=0, prompt=prompt, subject=subject, target_new=target)


def book_of(editor: GraceEditor, *requests: EditRequest, **options: Any) -> Codebook:
    book = editor.edit(requests, **options).codebook
    assert book is not None
    return book


def rows(lm: LanguageModel, request: EditRequest) -> tuple[Tensor, int, Tensor]:
    """Ids of prompt and target, the prompt's last position, ids of the target."""
    text = tokenize(
        *(lm.tokenizer, request.prompt),
        subject=request.subject,
        target=request.target_new,
    )
    ids = torch.tensor([text.input_ids])
    return ids, text.target_start - 1, torch.tensor(text.target_ids)


@torch.no_grad()
def is_answered(lm: LanguageModel, request: EditRequest) -> bool:
    ids, last, target = rows(lm, request)
    return torch.equal(lm.model(ids).logits[0, last:-1].argmax(dim=1), target)


def plain_value(lm: LanguageModel, request: EditRequest, steps: int) -> Tensor:
    """Train as published: replace the module's output at the prompt's last position."""
    ids, last, target = rows(lm, request)
    module = lm.down_projection(1)
    value = torch.rand(32, generator=torch.Generator().manual_seed(0)).double()
    value.requires_grad_()

    def hook(_: object, __: object, output: Tensor) -> Tensor:
        is_last = torch.arange(output.shape[1]) == last
        return torch.where(is_last[:, None], value, output)

    handle = module.register_forward_hook(hook)
    adam = torch.optim.Adam([value], lr=1.0)
    for _ in range(steps):
        adam.zero_grad()
        cross_entropy(lm.model(ids).logits[0, last:-1], target).backward()
        adam.step()
    handle.remove()
    return value.detach()


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "phi"])
@pytest.mark.parametrize("request_", [REQUESTS[0], REQUESTS[1]], ids=["one", "several"])
def test_a_value_is_that_of_the_published_training(
    family: str, request_: EditRequest
) -> None:
    lm = double_model(family)

    book = book_of(GraceEditor(lm, config(num_gradient_steps=5)), request_)

    ids, last, _ = rows(lm, request_)
    with torch.no_grad(), trace(lm.model, [book.module], inputs=True) as seen:
        lm.model(ids)
    torch.testing.assert_close(book.keys[0], seen[book.module][0, last])
    torch.testing.assert_close(book.values[0], plain_value(lm, request_, 5))
    assert book.labels.tolist() == [label_of(request_.target_new)]


@pytest.mark.parametrize("layer", [0, 1])
def test_every_request_is_answered_and_the_model_is_as_before(layer: int) -> None:
    lm = pico_language_model("gpt2")
    before = [one.clone() for one in lm.model.parameters()]
    done: list[int] = []

    book = book_of(
        GraceEditor(lm, config(layers=(layer,))), *FACTS, progress=done.append
    )

    assert done == [1, 2, 3, 4, 5, 6]
    after = lm.model.parameters()
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))
    assert all(not module._forward_hooks for module in lm.model.modules())
    assert len(book) == len(FACTS)
    with applied_codebook(lm, book):
        assert all(is_answered(lm, request) for request in FACTS)
    # By chance the model says one of them as it is.
    assert sum(is_answered(lm, request) for request in FACTS) <= 1


def test_a_prompt_that_was_not_edited_keeps_its_logits_bit_by_bit() -> None:
    lm = pico_language_model("llama")
    book = book_of(GraceEditor(lm, config()), *FACTS)
    ids = rows(lm, asked("The capital of {} is", "of", subject="Germany"))[0]
    before = lm.model(ids).logits

    with applied_codebook(lm, book):
        after = lm.model(ids).logits

    assert torch.equal(before, after)


def test_one_after_another_is_all_at_once() -> None:
    lm = pico_language_model("gpt2")
    editor = GraceEditor(lm, config())
    at_once = book_of(editor, *FACTS)

    first = editor.edit(FACTS[:4])
    both = book_of(GraceEditor(lm, config()), *FACTS[4:], start=first)

    assert torch.equal(both.keys, at_once.keys)
    assert torch.equal(both.values, at_once.values)
    assert torch.equal(both.radii, at_once.radii)


def test_the_seed_decides_where_cold_values_start() -> None:
    lm = pico_language_model("gpt2")
    found = [
        book_of(GraceEditor(lm, config(seed=seed)), *FACTS[:2]).values
        for seed in (3, 3, 4)
    ]

    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


def test_cold_values_start_apart_from_each_other_between_0_and_1() -> None:
    lm = pico_language_model("gpt2")

    values = book_of(GraceEditor(lm, config(stop_loss=1e3)), *FACTS[:2]).values

    assert not torch.allclose(values[0], values[1])
    assert 0 <= values.min() < 0.2
    assert 0.8 < values.max() < 1


def test_a_warm_value_starts_from_what_the_module_puts_out() -> None:
    lm = pico_language_model("gpt2")
    settings = config(value_start="warm", num_gradient_steps=1, stop_loss=1e3)

    book = book_of(GraceEditor(lm, settings), FACTS[0])

    ids, last, _ = rows(lm, FACTS[0])
    with trace(lm.model, [book.module]) as seen:
        lm.model(ids)
    torch.testing.assert_close(book.values[0], seen[book.module][0, last])


def test_a_low_loss_ends_the_training() -> None:
    lm = pico_language_model("gpt2")
    ids, last, target = rows(lm, FACTS[0])

    def loss(stop: float) -> float:
        book = book_of(GraceEditor(lm, config(stop_loss=stop)), FACTS[0])
        with torch.no_grad(), applied_codebook(lm, book):
            logits = lm.model(ids).logits[0, last:-1]
        return cross_entropy(logits, target).item()

    assert loss(0.0) < 3.5 < loss(4.0) < 4.0


def test_the_same_question_with_another_answer_is_taught_anew() -> None:
    lm = pico_language_model("gpt2")
    first, second = (asked("The capital of {} is", to) for to in ("of", "the"))

    book = book_of(GraceEditor(lm, config()), first, second)

    assert len(book) == 1
    with applied_codebook(lm, book):
        assert is_answered(lm, second)
        assert not is_answered(lm, first)


def test_a_key_that_differs_by_rounding_is_the_same_question() -> None:
    lm = pico_language_model("gpt2")
    first, second = (asked("The capital of {} is", to) for to in ("of", "the"))
    book = book_of(GraceEditor(lm, config()), first)
    noise = 1e-7 * torch.randn_like(book.keys) * book.keys.norm() / 8
    other = ModelEdit(codebook=replace(book, keys=book.keys + noise))

    found = book_of(GraceEditor(lm, config()), second, start=other)

    assert not torch.equal(other.codebook.keys, book.keys)  # type: ignore[union-attr]
    assert found.labels.tolist() == [label_of("the")]
    assert found.radii.tolist() == pytest.approx([1e-3])


def test_the_same_request_twice_is_one_entry() -> None:
    lm = pico_language_model("gpt2")
    editor = GraceEditor(lm, config())

    once, twice = book_of(editor, FACTS[0]), book_of(editor, *FACTS[:1] * 2)

    assert torch.equal(once.values, twice.values)


def near(lm: LanguageModel, target: str) -> tuple[EditRequest, EditRequest, float]:
    """Two requests, the second with ``target``, and how far apart their keys are."""
    pair = asked("The capital of {} is", "of"), asked("{} is", target)
    keys = book_of(GraceEditor(lm, config()), *pair).keys
    return *pair, float((keys[0] - keys[1]).norm())


def test_near_questions_with_different_answers_split_their_distance() -> None:
    lm = double_model("gpt2")
    first, second, distance = near(lm, "the")

    book = book_of(GraceEditor(lm, config(radius=distance)), first, second)

    half = [distance / 2] * 2
    assert book.radii.tolist() == pytest.approx(half)
    with applied_codebook(lm, book):
        assert is_answered(lm, first)
        assert is_answered(lm, second)


def test_a_near_question_with_the_same_answer_needs_no_entry_if_it_is_answered() -> (
    None
):
    lm = double_model("gpt2")
    first, second, distance = near(lm, "of")
    settings = config(radius=0.8 * distance)

    book = book_of(GraceEditor(lm, settings), first, second)

    with applied_codebook(lm, replace(book, radii=book.radii.new_tensor([distance]))):
        assert is_answered(lm, second)
    assert len(book) == 1
    assert book.radii.tolist() == pytest.approx([1.01 * distance])


def test_a_near_question_that_the_value_does_not_answer_gets_its_own() -> None:
    lm = double_model("gpt2")
    first, second, distance = near(lm, "of")
    editor = GraceEditor(lm, config(radius=0.8 * distance))
    book = book_of(editor, first)
    # As if the value had been found where it answers no other question.
    weak = ModelEdit(codebook=replace(book, values=torch.zeros_like(book.values)))

    found = book_of(editor, second, start=weak)

    assert len(found) == 2
    assert found.radii.tolist() == pytest.approx([0.8 * distance] * 2)
    with applied_codebook(lm, found):
        assert is_answered(lm, second)


def test_keys_are_taken_on_the_model_that_the_edit_starts_from() -> None:
    lm = double_model("gpt2")
    [(name, shape)] = weight_shapes(lm, [0]).items()
    start = ModelEdit({name: torch.randn(shape).double() / 50})

    result = GraceEditor(lm, config()).edit(FACTS[:1], start=start)
    plain = book_of(GraceEditor(lm, config()), FACTS[0])

    assert result.deltas == start.deltas
    assert result.codebook is not None
    assert not torch.allclose(result.codebook.keys, plain.keys, atol=1e-3)


def test_no_requests_change_nothing() -> None:
    lm = pico_language_model("gpt2")
    editor = GraceEditor(lm, config())
    first = editor.edit(FACTS[:2])

    none, again = editor.edit(()), editor.edit((), start=first)

    assert none.codebook is not None
    assert len(none.codebook) == 0
    assert not none.deltas
    assert again.codebook is not None
    assert torch.equal(again.codebook.values, first.codebook.values)


def test_a_codebook_of_another_layer_is_an_error() -> None:
    lm = pico_language_model("gpt2")
    other = GraceEditor(lm, config(layers=(0,))).edit(FACTS[:1])

    with pytest.raises(ConfigurationError, match=r"h\.1\.mlp.*h\.0\.mlp"):
        GraceEditor(lm, config()).edit(FACTS, start=other)


def test_a_model_whose_weights_are_unusable_is_told_and_left_alone() -> None:
    lm = pico_language_model("gpt2")
    list(lm.model.parameters())[-1].fill_(torch.nan)

    with pytest.raises(NonFiniteOutputError, match="case 0"):
        GraceEditor(lm, config()).edit(FACTS)

    assert all(not module._forward_hooks for module in lm.model.modules())


@pytest.mark.parametrize("layer", [2, 3])
def test_a_layer_without_attention_above_is_an_error(layer: int) -> None:
    with pytest.raises(ConfigurationError):
        GraceEditor(pico_language_model("gpt2"), config(layers=(layer,)))


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": (0, 1)},
        {"radius": 0.0},
        {"num_gradient_steps": 0},
        {"value_start": "tepid"},
        {"seed": -1},
    ],
)
def test_values_out_of_range_are_errors(changes: dict[str, Any]) -> None:
    values = {"layers": (1,), **changes}

    with pytest.raises(ConfigurationError, match=next(iter(changes))):
        GraceConfig.checked(values, "here")


def test_a_configuration_is_read_back_from_its_json() -> None:
    settings: EditorConfig = config(seed=5, value_start="warm")

    assert read_config(settings.to_json()) == settings


def test_the_shipped_sets_are_the_published_ones() -> None:
    shipped = {one.name: one for one in published_sets() if one.editor == "grace"}
    found = {
        name: GraceConfig.from_published(one.hyperparameters)
        for name, one in shipped.items()
        if name != "embedded"
    }

    # EasyEdit's hparams/GRACE/*.yaml; KNOWLEDGE_EDITING.md section 2.
    published = {"radius": 1.0, "learning_rate": 1.0, "value_start": "cold"}
    assert found == {
        name: GraceConfig(layers=(layer,), num_gradient_steps=steps, **published)
        for name, layer, steps in (
            ("gpt-j-6b", 25, 200),
            ("llama2-7b", 27, 50),
            ("qwen2.5-7b", 18, 50),
        )
    }
    memit = {one.name: one.model for one in published_sets() if one.editor == "memit"}
    assert all(one.model == memit[name] for name, one in shipped.items())


def test_the_embedded_model_learns_facts_and_keeps_its_others() -> None:
    lm = load_language_model("embedded")
    settings = hyperparameters_for(lm, editor="grace")
    assert isinstance(settings, GraceConfig)
    cases = embedded_cases(8)
    book = book_of(GraceEditor(lm, settings), *(case.request for case in cases))

    with applied_codebook(lm, book):
        scores = [one.metrics() for one in score_cases(lm, cases)]
        written = [one.metrics() for one in generate_cases(lm, cases)]

    assert all(one["efficacy-accuracy"] == 1 for one in scores)
    assert all(one["generated-efficacy"] == 1 for one in written)
    assert sum(one["neighborhood-accuracy"] for one in scores) > 7.5
