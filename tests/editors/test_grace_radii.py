"""Balls with different answers never meet, whatever is asked for in which order."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flwr_collabedit.editors.grace_radii import covering, with_entry
from flwr_collabedit.models.codebook import Codebook, looked_up

RADIUS, RESOLUTION = 1.0, 1e-6
EMPTY = Codebook.empty("m", 1, 1, torch.zeros(0, dtype=torch.float64))


def key(*place: float) -> Tensor:
    return torch.tensor(place, dtype=torch.float64)


def added(book: Codebook, place: float, label: int, value: float = 0.0) -> Codebook:
    return with_entry(book, key(place), key(value), label, RADIUS, RESOLUTION)


def grown(book: Codebook, place: float, label: int) -> Codebook | None:
    return covering(book, key(place), label, RADIUS)


def test_the_first_entry_has_the_whole_radius() -> None:
    book = added(EMPTY, 3.0, label=7, value=0.5)

    assert (len(book), book.module) == (1, "m")
    assert (book.keys.item(), book.values.item()) == (3.0, 0.5)
    assert (book.radii.item(), book.labels.item()) == (1.0, 7)


def test_two_answers_split_their_distance() -> None:
    book = added(added(EMPTY, 0.0, label=1), 0.6, label=2)

    assert book.radii.tolist() == [0.3, 0.3]


def test_every_ball_in_the_way_shrinks_not_the_nearest_alone() -> None:
    book = added(added(EMPTY, -0.8, label=1), 1.2, label=1)

    book = added(book, 0.0, label=2)

    assert book.radii.tolist() == pytest.approx([0.4, 0.6, 0.4])


def test_a_small_ball_stays_small_and_the_new_one_takes_the_room() -> None:
    book = added(added(EMPTY, 0.0, label=1), 0.2, label=2)  # both of radius 0.1

    book = added(book, 0.7, label=1)

    # 0.5 from the key of the second one, which is in the way with 0.1.
    assert book.radii.tolist() == pytest.approx([0.1, 0.1, 0.4])


def test_balls_with_one_answer_may_meet() -> None:
    book = added(added(EMPTY, 0.0, label=1), 0.6, label=1)

    assert book.radii.tolist() == [1.0, 1.0]


def test_a_key_that_cannot_be_told_from_another_replaces_it() -> None:
    book = added(added(EMPTY, 0.0, label=1), 5.0, label=2)

    book = added(book, 1e-7, label=3, value=9.0)

    assert book.labels.tolist() == [2, 3]
    assert book.radii.tolist() == [1.0, 1.0]
    assert book.values[-1].item() == 9.0


def test_a_ball_grows_to_hold_a_near_key_with_its_answer() -> None:
    book = added(added(EMPTY, 0.0, label=1), 9.0, label=1)

    found = grown(book, 1.8, label=1)

    assert found is not None
    assert found.radii.tolist() == pytest.approx([1.8 * 1.01, 1.0])
    assert looked_up(found, key(1.8)[None], key(5.0)[None]).item() == 0.0


def test_a_key_inside_is_held_already() -> None:
    book = added(EMPTY, 0.0, label=1)

    assert grown(book, 0.9, label=1) is book


@pytest.mark.parametrize(
    ("place", "label"),
    [(0.5, 2), (2.1, 1)],
    ids=["another answer", "too far from the ball"],
)
def test_a_ball_does_not_grow_for(place: float, label: int) -> None:
    assert grown(added(EMPTY, 0.0, label=1), place, label) is None
    assert grown(EMPTY, 0.0, label) is None


def test_a_ball_does_not_grow_into_one_with_another_answer() -> None:
    book = added(added(EMPTY, 0.0, label=1), 2.5, label=2)  # from 1.5 on

    assert grown(book, 1.2, label=1) is not None
    assert grown(book, -1.495, label=1) is None  # with its slack it would be 1.51
    assert grown(book, -1.6, label=1) is None


Edits = st.lists(
    st.tuples(
        st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
        st.integers(0, 2),
        st.booleans(),
    ),
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(Edits)
def test_balls_with_different_answers_never_meet(edits: list) -> None:
    book = Codebook.empty("m", 2, 1, torch.zeros(0, dtype=torch.float64))
    for number, (place, label, may_grow) in enumerate(edits):
        covered = covering(book, key(*place), label, RADIUS) if may_grow else None
        book = covered or with_entry(
            *(book, key(*place), key(float(number)), label, RADIUS, RESOLUTION)
        )
        # What was asked last is answered, by an entry with its answer.
        gaps = (book.keys - key(*place)).norm(dim=1)
        nearest = int(gaps.argmin())
        assert gaps[nearest] <= book.radii[nearest]
        assert book.labels[nearest] == label

    between = torch.cdist(book.keys, book.keys)
    reach = book.radii[:, None] + book.radii
    differ = book.labels[:, None] != book.labels
    assert bool((reach <= between * (1 + 1e-9))[differ].all())
    assert bool((book.radii > 0).all())
