"""Which texts go together: spectral clustering of their cosine similarities.

FedLEKE partitions zsRE, which has no relation ids, by "spectral clustering after
transforming the text into word vectors":

Zhao et al. "FedLEKE: Federated Locate-then-Edit Knowledge Editing for Multi-Client
    Collaboration", section 5.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flwr_collabedit.errors import ConfigurationError

try:
    from scipy.sparse import csr_matrix, issparse, lil_matrix
    from sklearn import config_context
    from sklearn.cluster import SpectralClustering
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.neighbors import kneighbors_graph
    from sklearn.preprocessing import normalize
    from threadpoolctl import threadpool_limits
except ImportError as error:
    raise ImportError(
        "Clusters of texts need scikit-learn: install it by pip install "
        "'flwr-collabedit[simulation]'."
    ) from error

Vectorizer = Callable[[list[str]], NDArray[np.floating[Any]]]

# Up to here every pair of texts counts, as in FedLEKE: 134 MB in float64. Above, the
# nearest neighbours do, and some texts drawn at random, without which the graph would
# fall apart: 19,064 texts would need 2.9 GB for all pairs, and copies of it.
MAX_DENSE = 4096
NUM_NEIGHBORS, NUM_DRAWN = 32, 64
_CHUNK_MB = 128
# Words and single signs: no text is without a token.
_TOKEN = r"\w+|[^\w\s]"


def cluster_texts(
    texts: Sequence[str],
    num_clusters: int,
    *,
    seed: int = 0,
    vectorizer: Vectorizer | None = None,
) -> list[int]:
    """Return the cluster of every text; equal texts share one.

    Parameters
    ----------
    texts : sequence of str
        None of them blank.
    num_clusters : int
        At least 1. Fewer clusters are used where there are fewer different texts, and
        some may stay empty.
    seed : int
        The same seed and vectors give the same clusters, whatever the number of
        threads.
    vectorizer : callable or None
        Gives the vectors of a list of texts, shape ``(text, d)``, in its order, such as
        `flwr_collabedit.models.sentences.sentence_vectors`; ``None``: TF-IDF of words.

    Returns
    -------
    list of int
        From 0, below ``num_clusters``.

    Notes
    -----
    The affinity of two texts is their vectors' cosine, 0 where that is negative. Above
    ``MAX_DENSE`` different texts a text has an affinity only to its ``NUM_NEIGHBORS``
    nearest, to those that have it among theirs, and to ``NUM_DRAWN`` texts drawn by the
    seed. Then 20,000 texts take about 10 seconds and 0.6 GB on one core.

    Raises
    ------
    ConfigurationError
        If ``num_clusters`` is below 1, or ``vectorizer`` gives another number of
        vectors than of texts, or one that is not finite.
    """
    if num_clusters < 1:
        raise ConfigurationError(f"expected at least 1 cluster, found {num_clusters}")
    seed %= 2**32  # all that scikit-learn takes
    different = list(dict.fromkeys(texts))
    if len(different) <= num_clusters:
        labels = list(range(len(different)))
    else:
        vectors = _unit_vectors(different, vectorizer)
        # Sums over several threads round differently, and k-means may tip over.
        with threadpool_limits(1):
            labels = _spectral(_affinity(vectors, seed), num_clusters, seed)
    cluster = dict(zip(different, labels, strict=True))
    return [cluster[text] for text in texts]


def _unit_vectors(texts: list[str], vectorizer: Vectorizer | None) -> Any:
    """Return vectors of length 1, or 0 where all is 0: ``(text, d)``, maybe sparse."""
    if vectorizer is None:
        return TfidfVectorizer(token_pattern=_TOKEN).fit_transform(texts)
    vectors = np.asarray(vectorizer(texts), dtype=np.float64)
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise ConfigurationError(
            f"expected vectors of shape ({len(texts)}, d), one for each text, found "
            f"{vectors.shape}; correct the vectorizer"
        )
    if not np.isfinite(vectors).all():
        raise ConfigurationError(
            "expected finite vectors, found NaN or infinity; use another sentence model"
        )
    return normalize(vectors)


def _affinity(vectors: Any, seed: int) -> Any:
    """Return the clipped cosines ``(text, text)``: dense, or sparse above the limit."""
    if vectors.shape[0] <= MAX_DENSE:
        return np.clip(_cosines(vectors, vectors), 0.0, None)
    with config_context(working_memory=_CHUNK_MB):
        near = kneighbors_graph(
            vectors, NUM_NEIGHBORS, mode="distance", metric="cosine"
        )
    near.data = np.clip(1.0 - near.data, 0.0, None)
    rng = np.random.default_rng(seed)
    drawn = rng.choice(vectors.shape[0], NUM_DRAWN, replace=False)
    far = lil_matrix(vectors.shape[:1] * 2)
    far[:, drawn] = np.clip(_cosines(vectors, vectors[drawn]), 0.0, None)
    either = near.maximum(csr_matrix(far))
    return csr_matrix(either.maximum(either.T))


def _cosines(left: Any, right: Any) -> NDArray[np.float64]:
    cosines = left @ right.T
    dense: NDArray[np.float64]
    dense = cosines if isinstance(cosines, np.ndarray) else cosines.toarray()
    return dense


def _spectral(affinity: Any, num_clusters: int, seed: int) -> list[int]:
    clustering = SpectralClustering(
        num_clusters,
        affinity="precomputed",
        random_state=seed,
        # ARPACK factorises the matrix, which fills a sparse one: minutes for 20,000.
        eigen_solver="lobpcg" if issparse(affinity) else "arpack",
    )
    return [int(label) for label in clustering.fit_predict(affinity)]
