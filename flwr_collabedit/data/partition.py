"""Split cases over clients and over rounds.

The splits over clients are those of ``flwr_datasets`` partitioners, so that a study
here compares with any other study in Flower.
"""

from collections import defaultdict
from collections.abc import Sequence

from datasets import Dataset
from flwr_datasets.partitioner import (
    DirichletPartitioner,
    GroupedNaturalIdPartitioner,
    IidPartitioner,
    Partitioner,
)

from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.errors import ConfigurationError, nearest

METHODS = ("iid", "by-relation", "by-subject-cluster", "dirichlet")
_NEED_RELATIONS = ("by-relation", "dirichlet")


def split_over_clients(
    cases: Sequence[EvaluationCase],
    num_clients: int,
    *,
    method: str = "iid",
    alpha: float = 0.5,
    clusters: Sequence[int] | None = None,
    seed: int = 0,
) -> list[list[EvaluationCase]]:
    """Return the cases of every client: each case at exactly one client.

    Parameters
    ----------
    cases : sequence of EvaluationCase
        At least ``num_clients``.
    num_clients : int
        At least 1.
    method : str
        ``iid``: shuffled, sizes differ by at most one. ``by-relation``: a client has
        all cases of one or several relations, as evenly as whole relations allow;
        where the clients outnumber the relations, the largest relations are shared,
        and a client has cases of one relation. ``by-subject-cluster``: the same with
        clusters of the prompts, as many as clients, in the place of relations; for data
        that has none, such as zsRE. ``dirichlet``: the cases of every
        relation are shared in proportions from a Dirichlet distribution (Yurochkin et
        al., 2019, "Bayesian Nonparametric Federated Learning of Neural Networks",
        ICML).
    alpha : float
        Concentration of ``dirichlet``, above 0; small values give a client few
        relations and may leave some clients without any case. Read by no other method.
    clusters : sequence of int or None
        The cluster of every case; ``None`` takes those of
        `flwr_collabedit.data.clusters.cluster_texts`, which needs scikit-learn. Read by
        ``by-subject-cluster`` only.
    seed : int
        The same seed gives the same split.

    Raises
    ------
    ConfigurationError
        If there are more clients than cases, an option is unknown or out of range, or
        a method that needs relations meets a case without one.
    ImportError
        If scikit-learn is needed and not installed.
    """
    _check_options(cases, num_clients, method, alpha)
    relations = [case.request.relation_id for case in cases]
    columns = {"case": list(range(len(cases))), "relation": relations}
    if method == "by-relation":
        columns["client"] = _assign_groups(relations, num_clients)
    elif method == "by-subject-cluster":
        if clusters is None:
            clusters = _prompt_clusters(cases, num_clients, seed)
        if len(clusters) != len(cases):
            raise ConfigurationError(
                f"expected the cluster of each of {len(cases)} cases, found "
                f"{len(clusters)}"
            )
        columns["client"] = _assign_groups(clusters, num_clients)
    partitioner = _make_partitioner(num_clients, method, alpha, seed)
    # Shuffled, for the partitioners keep the order of the file otherwise.
    partitioner.dataset = Dataset.from_dict(columns).shuffle(seed=seed)
    parts = map(partitioner.load_partition, range(num_clients))
    return [[cases[index] for index in part["case"]] for part in parts]


def split_over_rounds(
    cases: Sequence[EvaluationCase], num_rounds: int
) -> list[list[EvaluationCase]]:
    """Return the cases of every round: in order, sizes differ by at most one.

    Parameters
    ----------
    cases : sequence of EvaluationCase
        Where there are fewer than rounds, the last rounds get none.
    num_rounds : int
        At least 1.

    Raises
    ------
    ConfigurationError
        If ``num_rounds`` is below 1.
    """
    if num_rounds < 1:
        raise ConfigurationError(f"expected at least 1 round, found {num_rounds}")
    size, num_larger = divmod(len(cases), num_rounds)
    ends = [(i + 1) * size + min(i + 1, num_larger) for i in range(num_rounds)]
    starts = [0, *ends[:-1]]
    return [list(cases[a:b]) for a, b in zip(starts, ends, strict=True)]


def _check_options(
    cases: Sequence[EvaluationCase], num_clients: int, method: str, alpha: float
) -> None:
    if method not in METHODS:
        raise ConfigurationError(
            f"unknown split {method!r}. {nearest(method, METHODS)}"
        )
    if num_clients < 1:
        raise ConfigurationError(f"expected at least 1 client, found {num_clients}")
    if num_clients > len(cases):
        raise ConfigurationError(
            f"expected at least one case for each client, found {num_clients} clients "
            f"and {len(cases)} cases; use fewer clients or more cases"
        )
    if method == "dirichlet" and not alpha > 0:
        raise ConfigurationError(f"expected alpha above 0, found {alpha}")
    missing = [case.request.case_id for case in cases if not case.request.relation_id]
    if method in _NEED_RELATIONS and missing:
        raise ConfigurationError(
            f"expected a relation_id in every case for the split {method!r}, found "
            f"{len(missing)} of {len(cases)} cases without (first: {missing[0]!r}); "
            f"use 'iid' or 'by-subject-cluster'"
        )


def _make_partitioner(
    num_clients: int, method: str, alpha: float, seed: int
) -> Partitioner:
    if method == "iid":
        return IidPartitioner(num_clients)
    if method in ("by-relation", "by-subject-cluster"):
        # PathologicalPartitioner drops relations that no client drew, and
        # NaturalIdPartitioner fixes one client for each relation; so which relations
        # go together is decided here.
        return GroupedNaturalIdPartitioner("client", group_size=1, sort_unique_ids=True)
    return DirichletPartitioner(
        num_clients, "relation", float(alpha), min_partition_size=0, seed=seed
    )


def _prompt_clusters(
    cases: Sequence[EvaluationCase], num_clusters: int, seed: int
) -> list[int]:
    # Here, because scikit-learn is an extra.
    from flwr_collabedit.data.clusters import cluster_texts

    texts = [case.rewrite_prompt for case in cases]
    return cluster_texts(texts, num_clusters, seed=seed)


def _assign_groups(groups: Sequence[str | int], num_clients: int) -> list[int]:
    """Return the client of every case, given its relation or cluster."""
    members: dict[str | int, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    clients: list[list[int]] = [[] for _ in range(min(num_clients, len(members)))]
    # Largest first, each to the client that has least: near even, and deterministic.
    for group in sorted(members, key=lambda name: (-len(members[name]), name)):
        min(clients, key=len).extend(members[group])
    while len(clients) < num_clients:
        largest = max(clients, key=len)
        clients.append(largest[len(largest) // 2 :])
        del largest[len(largest) // 2 :]
    owner = {index: i for i, own in enumerate(clients) for index in own}
    return [owner[index] for index in range(len(groups))]
