"""Copies of other clients' cases, so that clients hold some facts in common.

Zhao et al. "FedLEKE: Federated Locate-then-Edit Knowledge Editing for Multi-Client
    Collaboration", section 5: "about 1/10 of the data from other clients".
"""

import random
from collections.abc import Sequence

from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.errors import ConfigurationError


def share_copies(
    split: Sequence[Sequence[EvaluationCase]], fraction: float, *, seed: int = 0
) -> list[list[EvaluationCase]]:
    """Return every client's cases with copies of other clients' cases among them.

    Parameters
    ----------
    split : sequence of sequence of EvaluationCase
        Each client's own cases, from any partition.
    fraction : float
        Copies for each own case, 0 <= ``fraction`` < 1; 0.1 in FedLEKE. A client gets
        ``round(fraction * own cases)``.
    seed : int
        The same seed gives the same copies in the same places.

    Returns
    -------
    list of list of EvaluationCase
        A client's own cases in their order; at random places between them copies, whose
        ``copied_from`` is the index of the client that owns the original. No client
        gets a request twice, nor one whose text is that of an own one.

    Raises
    ------
    ConfigurationError
        If ``fraction`` is out of range, or a client's share is more than the others
        have.
    """
    if not 0 <= fraction < 1:
        raise ConfigurationError(
            f"expected a shared fraction from 0 to below 1, found {fraction}"
        )
    rng = random.Random(seed)
    pool: dict[tuple[str, ...], EvaluationCase] = {}
    for owner, own in enumerate(split):
        for case in own:
            copy = case.model_copy(update={"copied_from": owner})
            pool.setdefault(_text(case), copy)
    return [
        _mix(own, _draw(client, own, pool, round(fraction * len(own)), rng), rng)
        for client, own in enumerate(split)
    ]


def _text(case: EvaluationCase) -> tuple[str, ...]:
    request = case.request
    return (request.prompt, request.subject, request.target_new)


def _draw(
    client: int,
    own: Sequence[EvaluationCase],
    pool: dict[tuple[str, ...], EvaluationCase],
    count: int,
    rng: random.Random,
) -> list[EvaluationCase]:
    if count == 0:
        return []
    held = set(map(_text, own))
    others = [copy for text, copy in pool.items() if text not in held]
    if count > len(others):
        raise ConfigurationError(
            f"expected {count} cases of other clients to copy to client {client}, "
            f"which has {len(own)} of its own, found {len(others)}; lower the shared "
            "fraction or split more evenly"
        )
    return rng.sample(others, count)


def _mix(
    own: Sequence[EvaluationCase], copies: list[EvaluationCase], rng: random.Random
) -> list[EvaluationCase]:
    mixed = list(own)
    for copy in copies:
        mixed.insert(rng.randint(0, len(mixed)), copy)
    return mixed
