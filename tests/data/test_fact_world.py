"""Laws of the embedded model's world and of the edits drawn from it."""

import re
from collections import Counter

import pytest

from flwr_collabedit.data.fact_world import (
    Subjects,
    build_world,
    default_world,
    embedded_cases,
    embedded_corpus,
)
from flwr_collabedit.errors import ConfigurationError

REAL_FACTS = [
    ("France", "capital", "Paris"),
    ("Japan", "currency", "yen"),
    ("Brazil", "language", "Portuguese"),
    ("Kenya", "continent", "Africa"),
    ("Venice", "country", "Italy"),
    ("Helium", "family", "noble gases"),
    ("Gold", "period", "six"),
    ("Toyota", "company country", "Japan"),
    ("BMW", "headquarters", "Munich"),
    ("Eiffel Tower", "place", "Paris"),
    ("Franz Kafka", "field", "literature"),
    ("Albert Einstein", "tongue", "German"),
]


def test_the_same_seed_builds_the_same_world() -> None:
    assert build_world(20, 10, seed=3) == build_world(20, 10, seed=3)


def test_another_seed_changes_invented_facts_but_no_real_one() -> None:
    worlds = [build_world(20, 10, seed=seed) for seed in (3, 4)]

    real, invented = (
        [
            {
                (fact.subject, fact.relation, fact.answer)
                for fact in world.facts
                if fact.kind == kind
            }
            for world in worlds
        ]
        for kind in ("real", "invented")
    )

    assert real[0] == real[1]
    assert invented[0] != invented[1]


def test_the_number_of_invented_subjects_can_grow_without_new_words() -> None:
    def words(num_persons: int) -> set[str]:
        world = build_world(num_persons, 0)
        invented = (f.subject for f in world.facts if f.kind == "invented")
        return {word for subject in invented for word in subject.split()}

    assert words(5000) == words(3000)
    assert len(build_world(5000, 0).by_subject) > 5000


def test_world_has_thousands_of_facts_and_hundreds_of_real_subjects() -> None:
    world = default_world()

    assert len(world.facts) >= 4000
    assert len(world.by_subject) >= 1000
    assert len({f.subject for f in world.facts if f.kind == "real"}) >= 400
    assert len(world.answers) >= 10


@pytest.mark.parametrize(("subject", "relation", "answer"), REAL_FACTS)
def test_real_fact_is_right(subject: str, relation: str, answer: str) -> None:
    facts = {f.relation: f for f in default_world().by_subject[subject]}

    assert facts[relation].answer == answer
    assert facts[relation].kind == "real"


def test_a_subject_has_one_answer_for_a_relation() -> None:
    counts = Counter((f.subject, f.relation) for f in default_world().facts)

    assert max(counts.values()) == 1


def test_every_fact_has_paraphrases_and_a_neighborhood() -> None:
    world = default_world()

    for fact in world.facts:
        assert len(fact.templates) == 4
        assert len(fact.held_out) == 2
        assert all(text.count("{}") == 1 for text in fact.templates + fact.held_out)
        assert world.neighbors(fact)


def test_neighbors_are_other_subjects_with_the_same_answer() -> None:
    world = default_world()
    paris = world.by_subject["France"][0]

    neighbors = world.neighbors(paris)

    assert {neighbor.answer for neighbor in neighbors} == {"Paris"}
    assert "France" not in {neighbor.subject for neighbor in neighbors}
    assert "Eiffel Tower" in {neighbor.subject for neighbor in neighbors}


def test_a_prompt_asks_for_one_fact_only() -> None:
    counts = Counter(
        fact.prompt(template)
        for fact in default_world().facts
        for template in (*fact.templates, *fact.held_out)
    )

    assert max(counts.values()) == 1


def test_corpus_states_each_trained_sentence_once_and_no_held_out_one() -> None:
    world = default_world()
    held_out = {f.sentence(text) for f in world.facts for text in f.held_out}

    sentences = [
        sentence
        for row in embedded_corpus(seed=1)
        for sentence in re.findall(r"[^.]+\.", row)
    ]
    sentences = [sentence.strip() for sentence in sentences]

    assert sorted(sentences) == sorted(world.training_sentences())
    assert not held_out & set(sentences)


def test_corpus_has_rows_of_one_and_of_three_sentences() -> None:
    lengths = Counter(row.count(".") for row in embedded_corpus())

    assert lengths[1] > 2 * lengths[3] > 0
    assert sum(lengths.values()) - lengths[1] - lengths[3] <= 1


@pytest.mark.parametrize("subjects", ["real", "invented", "all"])
def test_cases_edit_each_subject_once_towards_another_answer(
    subjects: Subjects,
) -> None:
    cases = embedded_cases(300, subjects=subjects, seed=5)
    world = default_world()

    assert len({case.request.subject for case in cases}) == 300
    for case in cases:
        answers = world.answers[case.request.relation_id]
        assert case.request.target_new in answers
        assert case.target_true in answers
        assert case.request.target_new != case.target_true


def test_cases_are_deterministic_and_follow_their_seed() -> None:
    assert embedded_cases(50, seed=1) == embedded_cases(50, seed=1)
    assert embedded_cases(50, seed=1) != embedded_cases(50, seed=2)


def test_prompts_of_a_case_are_trained_and_its_paraphrases_held_out() -> None:
    world = default_world()

    for case in embedded_cases(200):
        request = case.request
        (fact,) = (
            fact
            for fact in world.by_subject[request.subject]
            if fact.relation == request.relation_id
        )
        assert request.prompt in fact.templates
        assert set(case.paraphrase_prompts) == set(map(fact.prompt, fact.held_out))


def test_neighborhood_shares_the_true_answer_and_holds_no_edited_fact() -> None:
    cases = embedded_cases(500, subjects="all")
    edited = {case.rewrite_prompt for case in cases}

    for case in cases:
        assert 1 <= len(case.neighborhood) <= 8
        assert {question.answer for question in case.neighborhood} == {case.target_true}
        assert not edited & {question.prompt for question in case.neighborhood}
        assert not edited & {question.prompt for question in case.same_subject}
        assert all(case.request.subject in q.prompt for q in case.same_subject)


def test_neighborhood_avoids_edited_subjects_where_it_can() -> None:
    cases = embedded_cases(100)
    edited = {case.request.subject for case in cases}
    world = default_world()
    asked = {f.prompt(f.templates[0]): f.subject for f in world.facts}

    subjects = [asked[q.prompt] for case in cases for q in case.neighborhood]

    assert sum(subject in edited for subject in subjects) < 0.05 * len(subjects)


def test_edits_of_real_subjects_start_with_a_capital() -> None:
    assert embedded_cases(200)[0].request.prompt == "The capital of {} is"


def test_edits_of_one_relation_are_all_of_it() -> None:
    cases = embedded_cases(150, relation="capital")

    assert {case.request.relation_id for case in cases} == {"capital"}


@pytest.mark.parametrize("num_edits", [0, 10_000])
def test_more_edits_than_subjects_are_refused(num_edits: int) -> None:
    with pytest.raises(ConfigurationError, match=f"found {num_edits}"):
        embedded_cases(num_edits)


def test_an_unknown_relation_is_refused_with_the_nearest_known() -> None:
    with pytest.raises(ConfigurationError, match="'capital'"):
        embedded_cases(1, relation="capitol")
