"""Only facts that the model answers right are traced."""

import pytest

from flwr_collabedit.data.known_facts import KnownFact, embedded_facts
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.locating.known import find_known
from flwr_collabedit.models.loading import load_language_model

RIGHT = embedded_facts(70)
WRONG = [fact.model_copy(update={"answer": "Atlantis"}) for fact in RIGHT]
LONG = KnownFact(fact_id="long", prompt="{}" + " is" * 70, subject="a", answer="b")


@pytest.fixture(scope="module")
def lm():
    return load_language_model("embedded")


def test_wrong_answers_are_left_out_and_what_cannot_be_asked_is_told(lm):
    known = find_known(lm, [WRONG[0], LONG, *RIGHT[:3], WRONG[1]], most=10)

    assert known.facts == tuple(RIGHT[:3])
    assert known.num_asked == 5
    (problem,) = known.problems
    assert "'long'" in problem
    assert "at most 64 tokens" in problem


def test_no_more_are_asked_than_needed(lm):
    seen = []
    facts = [*WRONG[:10], *RIGHT]

    known = find_known(lm, facts, most=5, progress=lambda *done: seen.append(done))

    assert known.facts == tuple(RIGHT[:5])
    assert known.num_asked == 64
    assert seen == [(5, 5)]


def test_all_batches_are_asked_until_enough_are_known(lm):
    known = find_known(lm, [*WRONG, *RIGHT[:2]], most=5)

    assert known.facts == tuple(RIGHT[:2])
    assert known.num_asked == 72


def test_a_model_that_knows_nothing_is_told(lm):
    with pytest.raises(
        ConfigurationError, match=r"none of 2\. .* 1 could not be asked"
    ):
        find_known(lm, [WRONG[0], WRONG[1], LONG], most=5)
