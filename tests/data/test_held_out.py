"""Held-out text and neutral prompts: never trained, never about excluded subjects."""

from collections.abc import Callable

import pytest

from flwr_collabedit.data.fact_world import default_world, embedded_cases
from flwr_collabedit.data.held_out import (
    embedded_held_out_texts,
    embedded_neutral_prompts,
)
from flwr_collabedit.errors import ConfigurationError

NUM_FACTS, NUM_SUBJECTS = 7414, 2588
Draw = Callable[..., list[str]]

draws = pytest.mark.parametrize(
    ("draw", "number"),
    [
        (embedded_held_out_texts, 2 * NUM_FACTS),
        (embedded_neutral_prompts, NUM_SUBJECTS),
    ],
    ids=["texts", "prompts"],
)


def test_no_held_out_text_was_trained_on() -> None:
    trained = set(default_world().training_sentences())

    texts = embedded_held_out_texts(2 * NUM_FACTS)

    assert not trained & set(texts)
    assert len(set(texts)) == 2 * NUM_FACTS


def test_neutral_prompts_ask_for_known_facts_of_as_many_subjects() -> None:
    facts = {fact.prompt(fact.templates[0]): fact for fact in default_world().facts}

    asked = [facts[prompt] for prompt in embedded_neutral_prompts(NUM_SUBJECTS)]

    assert len({fact.subject for fact in asked}) == NUM_SUBJECTS


@draws
def test_excluded_subjects_never_come_and_the_others_keep_their_order(
    draw: Draw, number: int
) -> None:
    cases = embedded_cases(200, subjects="all", seed=3)
    edited = {case.request.subject for case in cases}
    facts = [f for f in default_world().facts if f.subject in edited]
    about_edited = {
        text
        for fact in facts
        for template in (*fact.templates, *fact.held_out)
        for text in (fact.prompt(template), fact.sentence(template))
    }

    everything = draw(number)
    left = [text for text in everything if text not in about_edited]

    assert len(left) < number
    assert draw(len(left), exclude=edited) == left


@draws
def test_the_seed_decides_which_come(draw: Draw, number: int) -> None:
    assert draw(20, seed=1) == draw(20, seed=1)
    assert draw(20, seed=1) != draw(20, seed=2)


@draws
def test_more_than_there_are_is_refused(draw: Draw, number: int) -> None:
    with pytest.raises(ConfigurationError, match=f"1 to {number} texts"):
        draw(number + 1)
    with pytest.raises(ConfigurationError, match="found 0"):
        draw(0)
