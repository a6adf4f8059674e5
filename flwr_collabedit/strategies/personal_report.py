"""Scores of clients with models of their own: each client's, and weighted means."""

from collections.abc import Mapping
from typing import Any

from flwr_collabedit.evaluation.metrics import MetricSums, summarize
from flwr_collabedit.messages.payloads import RECEIVED

_SHOWN = ("Score", "accuracy_score", "ES", "PS", "NS", "EA", "PA", "NA", "retention")
_COUNTED = "efficacy-accuracy"


def personal_figures(by_client: Mapping[str, MetricSums]) -> dict[str, Any]:
    """Return own, received and all-records scores, by client and as weighted means.

    FedLEKE's numbers are per-client Scores, weighted by records: ``mean`` of ``all``.

    Parameters
    ----------
    by_client : mapping of str to MetricSums
        Metrics of a client's own cases and, under ``received/``, of those of others
        that it has written.

    Returns
    -------
    dict
        ``clients``: for each client ``own``, ``received`` and ``all``, each with scores
        in percent and ``records``. ``mean``: for each of the three the mean over
        clients, weighted by records.
    """
    clients = {}
    for name in sorted(by_client):
        own, received = _separated(by_client[name])
        parts = {"own": own, "received": received, "all": own + received}
        clients[name] = {part: _row(sums) for part, sums in parts.items()}
    mean = {part: _mean([row[part] for row in clients.values()]) for part in _PARTS}
    return {"clients": clients, "mean": mean}


_PARTS = ("own", "received", "all")


def _separated(sums: MetricSums) -> tuple[MetricSums, MetricSums]:
    totals = sums.totals
    own = {name: t for name, t in totals.items() if not name.startswith(RECEIVED)}
    received = {
        name.removeprefix(RECEIVED): total
        for name, total in totals.items()
        if name.startswith(RECEIVED)
    }
    return MetricSums(own), MetricSums(received)


def _row(sums: MetricSums) -> dict[str, float]:
    scores = summarize(sums)
    row = {name: scores[name] for name in _SHOWN}
    known = {name: value for name, value in row.items() if value is not None}
    return {**known, "records": sums.totals.get(_COUNTED, (0.0, 0))[1]}


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    found = {}
    for name in _SHOWN:
        pairs = [(row[name], row["records"]) for row in rows if name in row]
        weight = sum(records for _, records in pairs)
        if weight:
            found[name] = sum(value * records for value, records in pairs) / weight
    return {**found, "records": sum(row["records"] for row in rows)}
