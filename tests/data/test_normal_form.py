"""Texts that name the same thing have one normal form, other texts have another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flwr_collabedit.data.normal_form import fact_of, normal_form
from flwr_collabedit.data.requests import EditRequest

SAME = {
    "case": ("PARIS", "Paris"),
    "sharp-s": ("Straße", "STRASSE"),
    "composed": ("Malmo\u0308", "Malm\u00f6"),
    "ligature": ("\ufb01sh", "fish"),
    "full-width": ("\uff21\uff22", "AB"),
    "spaces": ("  New\u00a0 York\n", "New York"),
    "full-stop": ("Apple Inc.", "Apple Inc"),
    "quotes": ("\u201cHamlet\u201d", '"Hamlet"'),
    "inner-apostrophe": ("L\u2019Aquila", "L'Aquila"),
    "dash": ("2006\u201307 season", "2006-07 season"),
    "invisible": ("\u200bPa\u00adris", "Paris"),
}
OTHER = {
    "accent": ("Malmo", "Malmö"),
    "article": ("The Who", "Who"),
    "plus": ("C++", "C"),
    "sharp": ("C#", "C"),
    "sign": ("-5", "5"),
    "inner-stop": ("1.5", "15"),
    "inner-space": ("New York", "NewYork"),
    "bracket": ("Hamlet (film)", "Hamlet"),
    "only-punctuation": ("!!!", "!"),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_spellings_of_one_name_are_equal(one: str, other: str):
    assert normal_form(one) == normal_form(other)


@pytest.mark.parametrize(("one", "other"), OTHER.values(), ids=OTHER)
def test_other_names_stay_apart(one: str, other: str):
    assert normal_form(one) != normal_form(other)


@given(st.text())
def test_a_normal_form_is_its_own(text: str):
    once = normal_form(text)

    assert normal_form(once) == once
    assert once == once.strip()


@given(st.text(min_size=1), st.sampled_from(["", " ", "\n\t", "\u200b"]))
def test_outer_white_space_and_case_never_matter(text: str, outer: str):
    assert normal_form(outer + text + outer) == normal_form(text)
    assert normal_form(text.casefold()) == normal_form(text)


def request(**changes: str) -> EditRequest:
    values = {"prompt": "The capital of {} is", "subject": "France", "target_new": "x"}
    return EditRequest(case_id=0, **{**values, **changes})


def test_a_named_relation_makes_templates_equal():
    one = request(relation_id="P36")
    other = request(relation_id="p36", prompt="{} is governed from", target_new="y")

    assert fact_of(one) == fact_of(other) == ("id", "p36", "france")


def test_without_a_name_the_template_is_the_relation():
    assert fact_of(request()) == ("template", "the capital of {} is", "france")
    assert fact_of(request()) != fact_of(request(prompt="{} is governed from"))
    assert fact_of(request()) != fact_of(request(subject="Spain"))


def test_a_name_that_is_spelled_like_a_template_is_not_that_template():
    named = request(relation_id="The capital of {} is")

    assert fact_of(named) != fact_of(request())
