"""Positions and what they are to the subject."""

import pytest
from pico import MAX_LENGTH, pico_language_model

from flwr_collabedit.data.known_facts import KnownFact
from flwr_collabedit.errors import RequestFormatError
from flwr_collabedit.locating.traced_prompt import ROLES, TracedPrompt

FIRST, MIDDLE, LAST, AFTER, FURTHER, END = ROLES


@pytest.mark.parametrize(
    ("subject", "length", "expected"),
    [
        ((1, 4), 9, [FIRST, MIDDLE, MIDDLE, LAST, AFTER, FURTHER, FURTHER, END]),
        ((0, 0), 4, [LAST, AFTER, FURTHER, END]),
        ((0, 1), 4, [FIRST, LAST, AFTER, END]),
        ((2, 2), 4, [LAST, END]),
        ((2, 3), 4, [FIRST, LAST]),
    ],
    ids=["all", "one token", "two tokens", "one token after", "none after"],
)
def test_every_position_from_the_subject_on_has_one_role(subject, length, expected):
    prompt = TracedPrompt(tuple(range(length)), 0, *subject)

    assert [prompt.role(position) for position in prompt.positions] == expected
    assert prompt.positions == range(subject[0], length)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_fact_is_split_before_its_answer(family):
    lm = pico_language_model(family)
    fact = KnownFact(
        fact_id=0, prompt="In Rome {} is in", subject="Norway", answer="Asia"
    )

    prompt = TracedPrompt.of(lm, fact)

    whole = lm.tokenizer("In Rome Norway is in Asia")["input_ids"]
    assert list(prompt.input_ids) == whole[: len(prompt.input_ids)]
    assert prompt.answer_id == whole[len(prompt.input_ids)]
    assert lm.tokenizer.decode(prompt.input_ids).endswith("In Rome Norway is in")
    subject = prompt.input_ids[prompt.subject_first : prompt.subject_last + 1]
    assert lm.tokenizer.decode(subject).strip() == "Norway"


def test_a_prompt_past_the_models_context_is_refused():
    lm = pico_language_model("gpt2")
    fact = KnownFact(
        fact_id=0, prompt="{}" + " is" * MAX_LENGTH, subject="Rome", answer="Asia"
    )

    with pytest.raises(RequestFormatError, match=f"at most {MAX_LENGTH} tokens"):
        TracedPrompt.of(lm, fact)
