"""A fact is answered already when the model itself would write every token of it."""

import pytest
import torch

from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.evaluation.presence import answers_already
from flwr_collabedit.models.language_model import LanguageModel
from tests.evaluation.constant_model import constant_language_model
from tests.pico import FAMILIES, pico_language_model

PROMPTS = ("The capital of {} is", "{}", "Because of the long day {} lives in")
SUBJECTS = ("France", "Angela Merkel", "Norway")


def request(prompt: str, subject: str, target: str) -> EditRequest:
    return EditRequest(case_id=0, prompt=prompt, subject=subject, target_new=target)


def plain_answer(lm: LanguageModel, prompt: str) -> str | None:
    """A token of its own that the model's own head likes best and a target can be."""
    ids = lm.tokenizer(prompt)["input_ids"]
    with torch.no_grad():
        best = lm.model(torch.tensor([ids])).logits[0, -1].argmax().item()
    text = lm.tokenizer.decode(best).strip()
    again = lm.tokenizer(f"{prompt} {text}")["input_ids"] if text else []
    return text if again == [*ids, best] else None


@pytest.mark.parametrize("family", FAMILIES)
def test_every_token_must_be_the_likeliest_on_the_rewrite_prompt(family: str):
    lm = pico_language_model(family)
    requests, expected = [], []
    for prompt in PROMPTS:
        for subject in SUBJECTS:
            text = prompt.replace("{}", subject)
            for target in ("Rome", "the city of London", plain_answer(lm, text)):
                if target is not None:
                    requests.append(request(prompt, subject, target))
                    expected.append(is_greedy(lm, text, target))

    assert answers_already(lm, requests, batch_size=4) == expected


def is_greedy(lm: LanguageModel, prompt: str, target: str) -> bool:
    start = len(lm.tokenizer(prompt)["input_ids"])
    ids = lm.tokenizer(f"{prompt} {target}")["input_ids"]
    with torch.no_grad():
        best = lm.model(torch.tensor([ids])).logits[0].argmax(dim=-1).tolist()
    return best[start - 1 : -1] == ids[start:]


def test_the_answer_is_known_and_every_other_is_not():
    lm = constant_language_model({" German": 0.5, " the": 0.4})
    targets = ["German", "the", "German German", "German the", "London"]

    found = answers_already(lm, [request("{} is", "It", t) for t in targets])

    assert found == [True, False, True, False, False]


def test_some_pico_model_answers_something_so_that_the_oracle_can_fail():
    answers = [
        plain_answer(pico_language_model(family), prompt.replace("{}", subject))
        for family in FAMILIES
        for prompt in PROMPTS
        for subject in SUBJECTS
    ]

    assert sum(answer is not None for answer in answers) >= 5


def test_no_requests_have_no_answers():
    assert answers_already(pico_language_model("gpt2"), []) == []
