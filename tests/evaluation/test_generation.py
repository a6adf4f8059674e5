"""Generated answers equal a plain argmax loop, and match as words do."""

import pytest
import torch

from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.errors import RequestFormatError
from flwr_collabedit.evaluation.case_score import sums
from flwr_collabedit.evaluation.continuation import continue_greedily
from flwr_collabedit.evaluation.generation import (
    begins_with_target,
    generate_cases,
)
from flwr_collabedit.models.language_model import LanguageModel
from tests.evaluation.constant_model import constant_language_model
from tests.pico import FAMILIES, pico_language_model

PROMPTS = [
    "The capital of France is",
    "I",
    "Because Danielle Darrieux, a native speaker of French, lives in the city of",
]
BUDGETS = [6, 3, 4]


def plain_greedy(lm: LanguageModel, prompt: str, num_tokens: int) -> str:
    """One prompt, the whole text read again for every token."""
    ids = lm.tokenizer(prompt)["input_ids"]
    start = len(lm.tokenizer.decode(ids, skip_special_tokens=True))
    for _ in range(num_tokens):
        with torch.no_grad():
            best = lm.model(torch.tensor([ids])).logits[0, -1].argmax().item()
        if best == lm.tokenizer.eos_token_id:
            break
        ids = [*ids, best]
    return lm.tokenizer.decode(ids, skip_special_tokens=True)[start:]


def case(target: str, *paraphrases: str) -> EvaluationCase:
    request = EditRequest(
        case_id=1, prompt="The capital of {} is", subject="France", target_new=target
    )
    return EvaluationCase(request=request, paraphrase_prompts=paraphrases)


@pytest.mark.parametrize("family", FAMILIES)
def test_batched_continuations_equal_a_plain_argmax_loop(family):
    lm = pico_language_model(family)

    texts = continue_greedily(lm, PROMPTS, BUDGETS, batch_size=2)

    assert texts == [
        plain_greedy(lm, prompt, budget)
        for prompt, budget in zip(PROMPTS, BUDGETS, strict=True)
    ]


@pytest.mark.parametrize(
    "setting", [{"repetition_penalty": 100.0}, {"no_repeat_ngram_size": 1}]
)
def test_the_models_own_generation_settings_are_not_applied(setting):
    lm = constant_language_model({" German": 0.5})
    lm.model.generation_config.update(**setting)

    assert continue_greedily(lm, ["I"], [3]) == [" German German German"]


def test_text_ends_where_the_model_ends_it():
    lm = constant_language_model({"</s>": 0.5})

    assert continue_greedily(lm, PROMPTS, BUDGETS) == ["", "", ""]


@pytest.mark.parametrize(
    ("prompt", "text", "target", "expected"),
    [
        ("It is", " Paris, France", "Paris", True),
        ("It is", " Paris", "Paris", True),
        ("It is", "\n Paris\n", "Paris", True),
        ("It is ", "Paris", "Paris", True),
        ("It is (", "Paris)", "Paris", True),
        ("It is", " Parisian", "Paris", False),
        ("It is", " paris", "Paris", False),
        ("It is", " in Paris", "Paris", False),
        ("It is an is", "land", "land", False),
        ("It is", " U.S. soil", "U.S.", True),
        ("It is", " UXS. soil", "U.S.", False),
        ("It is", "", "Paris", False),
    ],
)
def test_a_match_begins_the_text_as_words_of_its_own(prompt, text, target, expected):
    assert begins_with_target(prompt, text, target) is expected


def test_generated_metrics_are_fractions_of_the_cases_prompts():
    lm = constant_language_model({" German": 0.5})
    cases = [case("German", "France:", "I think that"), case("Rome")]

    right, wrong = generate_cases(lm, cases)
    total = sums([right, wrong])

    assert right.rewrite.text == " German" * 4
    assert [answer.match for answer in right.paraphrases] == [True, True]
    assert total.to_flat() == {
        "generated-efficacy/sum": 1.0,
        "generated-efficacy/count": 2,
        "generated-paraphrase/sum": 1.0,
        "generated-paraphrase/count": 1,
    }


def test_a_correct_first_token_is_not_a_generated_answer():
    lm = constant_language_model({" German": 0.5, " the": 0.3})

    (generation,) = generate_cases(lm, [case("German the")])

    assert not generation.rewrite.match


def test_answers_do_not_depend_on_the_other_cases_of_the_call():
    lm = pico_language_model("gpt2")
    cases = [case("Rome", *PROMPTS), case("Norway belongs to the continent of Europe")]

    together = generate_cases(lm, cases)

    assert together == [generate_cases(lm, [one])[0] for one in cases]


def test_a_generation_is_one_line_of_json_and_reads_back():
    (generation,) = generate_cases(pico_language_model("gpt2"), [case("Rome", "I")])

    line = generation.model_dump_json()

    assert "\n" not in line
    assert type(generation).model_validate_json(line) == generation


def test_no_cases_give_no_generations():
    assert generate_cases(pico_language_model("gpt2"), []) == []


def test_a_prompt_without_room_for_the_answer_is_refused():
    with pytest.raises(RequestFormatError, match="reads at most 128"):
        continue_greedily(pico_language_model("gpt2"), ["capital " * 200], [3])
