"""What one round did: the record that logs, reports and callers read."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from flwr.app import Message, MetricRecord

from flwr_collabedit.errors import PayloadError
from flwr_collabedit.evaluation.metrics import MetricSums, summarize
from flwr_collabedit.messages.payloads import (
    ARRAYS,
    BASE,
    METRICS,
    NUM_EDITS,
    RESIDUAL_SQUARE,
    record_bytes,
)
from flwr_collabedit.strategies.evaluation_figures import (
    efficacy_by_round,
    health_figures,
)

_PHASES = ("targets", "measure")
_NORMS = ("l1/", "l2/", "delta-l1/")


@dataclass
class RoundReport:
    """Figures of one round, summed over clients.

    Attributes
    ----------
    server_round : int
        The round; 0 is the evaluation before the first one.
    num_edits, num_clients : int
        Edits that went into the update, and clients whose replies did.
    edits_by_client : dict of str to int
        The same by client, for CollabEdit.
    residual_norm_before, residual_norm_after : float or None
        Frobenius norm of all clients' residuals on the round's starting model and,
        where the round was evaluated, on its final one.
    sweep_residual_norms : list of float
        The same at the start of every sweep over the layers, the first one included.
    upload_bytes, download_bytes : int
        Array bytes received from and sent to all clients in training exchanges.
    seconds : dict of str to float
        ``exchange`` and ``solve`` on the server; ``targets`` and ``measure`` are the
        slowest client's.
    dropped : dict of str to str
        Client nodes that were left out, with the reason.
    clients : dict of str to dict
        By client: ``status`` (``ok`` or ``left out``), ``upload-bytes``, ``seconds``
        until its replies had come, over the round's exchanges, and the ``reason`` why
        it was left out. A client that has never given its name is its node.
    evaluation : dict of str to float
        Scores in the published names, see `flwr_collabedit.evaluation.metrics`.
    weight_norms, base_norms : dict of str to float
        ``l1/<parameter>`` and ``l2/<parameter>`` of the edited weights, now and before
        all edits; ``delta-l1/<parameter>`` of what all edits have added.
    health : dict of str to float
        ``perplexity`` and ``base-perplexity`` of held-out text, now and before all
        edits; ``kl-to-base`` on neutral prompts, in nats.
    efficacy_by_round : dict of str to dict of str to float
        By round, of its edits that count: ``EA`` and ``ES`` in percent, ``edits``;
        under ``inactive`` those of edits that were left out or withdrawn.
    efficacy_by_client : dict of str to float
        EA, in percent, of each client's edits of this round.
    warnings : list of str
        Bounds that the round has passed.
    refused : str
        Why the round was undone; empty if it was not.
    declared : dict of str to int
        What the declarations before the round came to: ``present`` edits, facts in
        ``conflicts`` and ``overlaps``, edits ``left-out``; earlier edits that were
        ``withdrawn``, or ``overruled``: written over and no longer counted.
    mediator : dict of str to float
        FedEdit's counts of the slot: vectors uploaded, offered, selected, rejected, in
        conflict and reused, gradient steps made and saved; and its alpha.
    personal : dict
        FedEdit's scores, see `flwr_collabedit.strategies.personal_report`.
    """

    server_round: int
    num_edits: int = 0
    num_clients: int = 0
    edits_by_client: dict[str, int] = field(default_factory=dict)
    residual_norm_before: float | None = None
    residual_norm_after: float | None = None
    sweep_residual_norms: list[float] = field(default_factory=list)
    upload_bytes: int = 0
    download_bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    clients: dict[str, dict[str, Any]] = field(default_factory=dict)
    evaluation: dict[str, float] = field(default_factory=dict)
    weight_norms: dict[str, float] = field(default_factory=dict)
    base_norms: dict[str, float] = field(default_factory=dict)
    health: dict[str, float] = field(default_factory=dict)
    efficacy_by_round: dict[str, dict[str, float]] = field(default_factory=dict)
    efficacy_by_client: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    refused: str = ""
    declared: dict[str, int] = field(default_factory=dict)
    mediator: dict[str, float] = field(default_factory=dict)
    personal: dict[str, Any] = field(default_factory=dict)

    def add_seconds(self, phase: str, seconds: float) -> None:
        """Add to the time that a phase took."""
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds

    def note_reply(self, client: str, upload_bytes: int, seconds: float) -> None:
        """Enter that a client's reply was accepted."""
        entry = self._client(client)
        entry["upload-bytes"] += upload_bytes
        entry["seconds"] += seconds

    def note_left_out(self, client: str, reason: str) -> None:
        """Enter that a client was left out."""
        self._client(client).update({"status": "left out", "reason": reason})

    def _client(self, name: str) -> dict[str, Any]:
        fresh = {"status": "ok", "upload-bytes": 0, "seconds": 0.0, "reason": ""}
        return self.clients.setdefault(name, fresh)

    def client_lines(self) -> list[str]:
        """Return one line for each client, for an operator's log."""
        return [
            f"Round {self.server_round}, {name}: {entry['status']}, "
            f"{self.edits_by_client.get(name, 0)} edits, "
            f"{entry['upload-bytes'] / 1024:.0f} KiB, {entry['seconds']:.1f} s"
            + (f": {entry['reason']}" if entry["reason"] else "")
            for name, entry in sorted(self.clients.items())
        ]

    def count(self, numbers: Mapping[str, float]) -> None:
        """Add to the slot's mediator counts."""
        for name, number in numbers.items():
            self.mediator[name] = self.mediator.get(name, 0) + number

    def count_withdrawn(self, num_edits: int) -> None:
        """Add edits that were taken back before the round."""
        self.declared["withdrawn"] = self.declared.get("withdrawn", 0) + num_edits

    def set_evaluation(self, sums: MetricSums) -> None:
        """Take over the clients' summed metrics."""
        self.evaluation = _defined(summarize(sums))
        norms = [name for name in sums.totals if name.startswith(_NORMS)]
        self.weight_norms = _defined({name: sums.mean(name) for name in norms})
        self.base_norms = _defined({n: sums.mean(f"{BASE}{n}") for n in norms})
        self.health = health_figures(sums)
        self.efficacy_by_round = efficacy_by_round(sums)
        if RESIDUAL_SQUARE in sums.totals:
            self.residual_norm_after = math.sqrt(sums.totals[RESIDUAL_SQUARE][0])

    def to_dict(self) -> dict[str, object]:
        """Return the report as JSON-ready values."""
        return asdict(self)

    def train_metrics(self) -> MetricRecord:
        """Return the numbers of the training phase as Flower's record."""
        numbers: dict[str, int | float | list[int] | list[float]] = {
            NUM_EDITS: self.num_edits,
            "num-clients": self.num_clients,
            "upload-bytes": self.upload_bytes,
            "download-bytes": self.download_bytes,
            "residual-norm-before": self.residual_norm_before or 0.0,
        }
        numbers |= {f"mediator-{name}": value for name, value in self.mediator.items()}
        numbers |= {f"seconds-{phase}": value for phase, value in self.seconds.items()}
        return MetricRecord(numbers)


def _defined(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class ReplyFigures:
    """What accepted replies of one exchange say besides their arrays.

    Attributes
    ----------
    upload_bytes : int
        Of their arrays.
    residual_square : float
        Sum of the squares of all residuals.
    slowest : mapping of str to float
        Seconds of the slowest client in each phase.
    """

    upload_bytes: int = 0
    residual_square: float = 0.0
    slowest: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, reply: Message) -> Self:
        """Return one reply's numbers.

        Raises
        ------
        PayloadError
            If one is negative or not finite.
        """
        phases = {name: _number(reply, f"seconds-{name}") for name in _PHASES}
        size = record_bytes(reply.content.array_records[ARRAYS])
        return cls(size, _number(reply, RESIDUAL_SQUARE), phases)

    def __add__(self, other: "ReplyFigures") -> "ReplyFigures":
        slowest = {
            name: max(self.slowest.get(name, 0.0), other.slowest.get(name, 0.0))
            for name in _PHASES
        }
        return ReplyFigures(
            self.upload_bytes + other.upload_bytes,
            self.residual_square + other.residual_square,
            slowest,
        )

    @property
    def residual_norm(self) -> float:
        """Frobenius norm of all clients' residuals."""
        return math.sqrt(self.residual_square)

    def enter(self, report: RoundReport) -> None:
        """Add bytes and seconds to the round's report."""
        report.upload_bytes += self.upload_bytes
        for phase, seconds in self.slowest.items():
            report.add_seconds(phase, seconds)


def _number(reply: Message, key: str) -> float:
    """Return a number from a reply's metrics, 0 where it has none."""
    value = reply.content.metric_records[METRICS].get(key, 0)
    if not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise PayloadError(f"{key} is {value!r}; expected a finite number from 0.")
    return float(value)
