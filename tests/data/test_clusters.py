"""Similar texts share a cluster; the sparse way agrees with the one of all pairs."""

import random
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from flwr_collabedit.data import clusters
from flwr_collabedit.data.clusters import cluster_texts
from flwr_collabedit.errors import ConfigurationError

TOPICS = (
    "which river flows through the city of",
    "what university did the physicist attend named",
    "who composed the famous opera about",
)


def topical_texts(num_texts: int, seed: int = 0) -> tuple[list[str], list[int]]:
    """Return texts of three topics in random order, and the topic of each."""
    rng = random.Random(seed)
    topics = [index % len(TOPICS) for index in range(num_texts)]
    rng.shuffle(topics)
    texts = [f"{TOPICS[topic]} name{rng.randrange(10**6)}?" for topic in topics]
    return texts, topics


def same_partition(left: list[int], right: list[int]) -> bool:
    pairs = set(zip(left, right, strict=True))
    return len(pairs) == len(set(left)) == len(set(right))


def test_texts_of_a_topic_share_a_cluster():
    texts, topics = topical_texts(60)

    assert same_partition(cluster_texts(texts, 3), topics)


def test_nearest_neighbours_find_the_topics_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clusters, "MAX_DENSE", 100)
    texts, topics = topical_texts(300)

    assert same_partition(cluster_texts(texts, 3), topics)


def test_the_sparse_affinity_holds_cosines_of_near_and_of_drawn_texts(
    monkeypatch: pytest.MonkeyPatch,
):
    vectors = np.random.default_rng(0).normal(size=(60, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    dense = clusters._affinity(vectors, 0)
    monkeypatch.setattr(clusters, "MAX_DENSE", 59)
    monkeypatch.setattr(clusters, "NUM_NEIGHBORS", 5)
    monkeypatch.setattr(clusters, "NUM_DRAWN", 3)

    sparse = clusters._affinity(vectors, 0).toarray()

    np.testing.assert_array_equal(sparse, sparse.T)
    np.testing.assert_allclose(sparse[sparse > 0], dense[sparse > 0], atol=1e-12)
    np.fill_diagonal(sparse, 1.0)
    is_drawn = np.isclose(sparse, dense).all(axis=1)
    assert is_drawn.sum() == 3
    # Among the others, a pair is there where one is of the other's nearest five.
    np.fill_diagonal(dense, 0.0)
    is_near = dense >= np.sort(dense, axis=1)[:, -5:][:, :1]
    others = np.ix_(~is_drawn, ~is_drawn)
    np.fill_diagonal(sparse, 0.0)
    np.testing.assert_array_equal(sparse[others] > 0, (is_near | is_near.T)[others])


@given(
    texts=st.lists(
        st.text(min_size=1).filter(lambda text: text.strip()), min_size=1, max_size=12
    ),
    num_clusters=st.integers(1, 14),
    seed=st.integers(0, 2**40),
)
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore:Graph is not fully connected")
def test_any_texts_have_clusters_and_equal_ones_the_same(
    texts: list[str], num_clusters: int, seed: int
):
    labels = cluster_texts(texts + texts, num_clusters, seed=seed)

    assert len(labels) == 2 * len(texts)
    assert labels[: len(texts)] == labels[len(texts) :]
    assert all(0 <= label < num_clusters for label in labels)
    if len(set(texts)) <= num_clusters:
        assert len(set(labels)) == len(set(texts))


def test_the_seed_decides_where_there_are_no_clusters():
    vectors = np.random.default_rng(0).normal(size=(200, 16))
    texts = [str(index) for index in range(200)]

    first, again, other, large, negative = (
        cluster_texts(texts, 5, seed=seed, vectorizer=lambda _: vectors)
        for seed in (1, 1, 2, 2**32 + 1, 1 - 2**32)
    )

    assert first == again == large == negative
    assert not same_partition(first, other)


def test_clusters_are_found_on_one_thread(monkeypatch: pytest.MonkeyPatch):
    threads: set[int] = set()

    def count_threads(affinity: np.ndarray, *_: int) -> list[int]:
        threads.update(pool["num_threads"] for pool in threadpool_info())
        return [0] * len(affinity)

    monkeypatch.setattr(clusters, "_spectral", count_threads)
    with threadpool_limits(2):
        cluster_texts(["a", "b", "c"], 2)

    assert threads == {1}


def test_vectors_of_opposite_direction_are_apart():
    # Cosines 1, 0 and -1: the negative ones count as 0, not as an affinity.
    axes = np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.1], [0.0, 2.0, 0.0]])
    rng = np.random.default_rng(0)
    vectors = np.repeat(axes, 5, axis=0) + 0.05 * rng.normal(size=(15, 3))
    seen: list[list[str]] = []

    def vectorizer(texts: list[str]) -> np.ndarray:
        seen.append(texts)
        return vectors

    texts = [f"text {index}" for index in range(15)]
    labels = cluster_texts(texts + texts, 3, vectorizer=vectorizer)

    assert same_partition(labels, ([0] * 5 + [1] * 5 + [2] * 5) * 2)
    assert seen == [texts]
    affinity = clusters._affinity(clusters._unit_vectors(texts, vectorizer), 0)
    assert affinity.min() == 0.0
    np.testing.assert_allclose(affinity.diagonal(), 1.0)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((2, 4)), r"shape \(3, d\).*found \(2, 4\)"),
        (np.ones(3), r"shape \(3, d\).*found \(3,\)"),
        (np.full((3, 2), np.nan), "finite vectors, found NaN"),
    ],
    ids=["too-few", "flat", "nan"],
)
def test_unusable_vectors_are_refused(vectors: np.ndarray, message: str):
    with pytest.raises(ConfigurationError, match=message):
        cluster_texts(["a", "b", "c"], 2, vectorizer=lambda texts: vectors)


def test_no_cluster_at_all_is_refused():
    with pytest.raises(ConfigurationError, match="at least 1 cluster, found 0"):
        cluster_texts(["a"], 0)


def test_without_scikit_learn_the_error_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delitem(sys.modules, "flwr_collabedit.data.clusters")
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)

    with pytest.raises(ImportError, match=r"flwr-collabedit\[simulation\]"):
        import flwr_collabedit.data.clusters  # noqa: F401
