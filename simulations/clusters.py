"""A simulation's clusters of prompts, found once and kept in its cache folder.

Server and clients split the cases each for itself; the file saves the clients the work
and keeps the parties at one split, whatever their numbers of threads.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from flwr_collabedit.client_app import cached_model
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.files import replacing
from flwr_collabedit.models.sentences import sentence_vectors
from simulations.settings import ExperimentSettings


def prompt_clusters(
    settings: ExperimentSettings, cases: Sequence[EvaluationCase]
) -> list[int]:
    """Return the cluster of every case, from 0, at most one for each client.

    The file's name covers the prompts and the settings that the clusters depend on; of
    a sentence model its name only.
    """
    texts = [case.rewrite_prompt for case in cases]
    identity = [texts, settings.num_clients, settings.seed, settings.sentence_model]
    name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
    folder = Path(settings.cache_folder or settings.folder / "cache")
    path = folder / f"clusters-{name}.json"
    if path.exists():
        clusters: list[int] = json.loads(path.read_text(encoding="utf-8"))
        return clusters
    clusters = _find(settings, texts)
    # Runs side by side may share the folder.
    with replacing(path) as draft:
        draft.write_text(json.dumps(clusters), encoding="utf-8")
    return clusters


def _find(settings: ExperimentSettings, texts: list[str]) -> list[int]:
    # Here, because scikit-learn is an extra.
    from flwr_collabedit.data.clusters import cluster_texts

    vectorizer = None
    if settings.sentence_model:
        lm = cached_model(
            settings.model, settings.dtype, settings.device, settings.revision
        )
        vectorizer = partial(
            sentence_vectors, settings.sentence_model, device=lm.device
        )
    return cluster_texts(
        texts, settings.num_clients, seed=settings.seed, vectorizer=vectorizer
    )
