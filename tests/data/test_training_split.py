"""Training subjects and held-out ones: apart, and the same for everybody."""

from flwr_collabedit.data.fact_world import default_world, embedded_cases
from flwr_collabedit.data.training_split import is_held_out, split_cases
from flwr_collabedit.data.training_world import (
    embedded_training_cases,
    training_world,
)

NAMES = [f"Subject {number}" for number in range(4000)]


def test_a_share_of_the_subjects_is_held_out():
    held_out = [name for name in NAMES if is_held_out(name, 0.25)]

    assert 900 < len(held_out) < 1100
    assert not any(is_held_out(name, 0.0) for name in NAMES)
    assert all(is_held_out(name, 1.0) for name in NAMES)


def test_a_larger_share_holds_out_the_same_and_more():
    assert all(is_held_out(n, 0.5) for n in NAMES if is_held_out(n, 0.25))


def test_the_split_is_the_same_everywhere():
    # `printf France | sha256sum` begins with 7a1c, Apple's sum with f223.
    assert is_held_out("France", 0x7A1D / 0x10000)
    assert not is_held_out("France", 0x7A1C / 0x10000)
    assert is_held_out(" France ", 0.5)
    assert not is_held_out("Apple", 0.5)


def test_no_training_case_is_about_a_held_out_subject():
    cases = embedded_training_cases(num_draws=2)
    subjects = {case.request.subject for case in cases}
    held_out = default_world().by_subject.keys() - subjects

    assert len(cases) == 2 * len(subjects)
    assert subjects == training_world().by_subject.keys()
    assert not any(is_held_out(subject, 0.5) for subject in subjects)
    trained, none = split_cases(cases, 0.5)
    assert (trained, none) == (cases, [])
    asked = {q.prompt for c in cases for q in (*c.neighborhood, *c.same_subject)}
    known = {
        fact.prompt(fact.templates[0])
        for subject in held_out
        for fact in default_world().by_subject[subject]
    }
    assert not asked & known


def test_evaluated_subjects_are_held_out_and_enough_for_the_federated_study():
    cases = embedded_cases(1000, subjects="held-out")
    trained = training_world().by_subject.keys()

    subjects = {case.request.subject for case in cases}
    assert len(subjects) == 1000
    assert not subjects & trained
    kinds = {default_world().by_subject[subject][0].kind for subject in subjects}
    assert kinds == {"real", "invented"}


def test_a_seed_decides_the_targets():
    once, again = (embedded_training_cases(num_draws=1) for _ in range(2))

    assert once == again
    assert embedded_training_cases(num_draws=1, seed=1) != once
