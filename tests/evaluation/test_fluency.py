"""Entropies of n-grams, by hand."""

import math

import pytest

from flwr_collabedit.evaluation.fluency import fluency, ngram_entropy, split_words


def test_equal_shares_have_the_logarithm_of_their_number():
    # ab, bc, cd, de: four pairs, each once.
    assert ngram_entropy(list("abcde"), 2) == pytest.approx(2.0)
    assert ngram_entropy(list("abcde"), 3) == pytest.approx(math.log2(3))


def test_unequal_shares_are_weighted():
    # aa 3, ab 1: 3/4 log2(4/3) + 1/4 log2 4
    expected = 0.75 * math.log2(4 / 3) + 0.25 * 2
    assert ngram_entropy(list("aaaab"), 2) == pytest.approx(expected)
    # aaa 2, aab 1
    expected = 2 / 3 * math.log2(1.5) + 1 / 3 * math.log2(3)
    assert ngram_entropy(list("aaaab"), 3) == pytest.approx(expected)


def test_fluency_is_the_mean_of_the_weighted_entropies():
    pairs = 0.75 * math.log2(4 / 3) + 0.25 * 2
    triples = 2 / 3 * math.log2(1.5) + 1 / 3 * math.log2(3)

    assert fluency("a a a a b") == pytest.approx(pairs / 3 + 2 * triples / 3)


def test_case_and_signs_count():
    assert split_words("It's a B-52.  it") == [
        *("It", "'", "s", "a", "B", "-", "52", ".", "it")
    ]
    assert fluency("A a A a A a") > fluency("a a a a a a") == 0.0


@pytest.mark.parametrize("text", ["", "  \n", "one", "one two", "no no no no no no"])
def test_text_without_two_different_pairs_has_none(text):
    assert fluency(text) == 0.0


def test_a_text_of_three_words_has_pairs_but_no_choice_of_triples():
    # Two pairs: one bit, weighted by 2/3, halved.
    assert fluency("one two three") == pytest.approx(1 / 3)


def test_repetition_is_below_variety_of_the_same_length():
    varied = " ".join(f"w{number}" for number in range(60))
    looped = " ".join(f"w{number % 4}" for number in range(60))

    assert fluency(looped) < 2.1 < 5.8 < fluency(varied) < math.log2(60)
