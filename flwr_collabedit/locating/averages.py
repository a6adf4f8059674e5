"""Causal effects averaged over facts, with 95 % intervals.

Meng et al. "Locating and Editing Factual Associations in GPT", NeurIPS 2022, section
2.1: total effect ``P - P*`` and indirect effect ``P*,restored - P*`` of an answer's
probability, ``*`` for the corrupted run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flwr_collabedit.evaluation.intervals import Estimate
from flwr_collabedit.locating.causal_trace import FactTrace, Kind, Part, Severed
from flwr_collabedit.locating.traced_prompt import ROLES, Role


@dataclass(frozen=True)
class TraceAverages:
    """What the facts have in common; probabilities between 0 and 1.

    Attributes
    ----------
    clean, corrupted, total : Estimate
        The answer's probability without and with noise, and their difference.
    indirect : mapping
        By kind and role, for each layer: how much restoring gives back. A fact with
        several positions of a role counts once, with their mean; one without any does
        not count. Roles that no fact has are left out.
    entering : mapping
        By what is severed, for each layer: how much restoring what enters the block at
        the subject's last token gives back.
    gap : mapping
        By part, for each layer: how much less of it when the part is severed, from
        differences within facts. What the layer and those after it add by that part.
    """

    clean: Estimate
    corrupted: Estimate
    total: Estimate
    indirect: Mapping[Kind, Mapping[Role, Sequence[Estimate]]]
    entering: Mapping[Severed, Sequence[Estimate]]
    gap: Mapping[Part, Sequence[Estimate]]

    @classmethod
    def of(cls, traces: Sequence[FactTrace]) -> "TraceAverages":
        """Return the averages over at least one fact, all of one model."""
        first = traces[0]
        parts: list[Part] = [
            part for part in ("mlp", "attention") if part in first.entering
        ]
        return cls(
            clean=Estimate.of([trace.clean for trace in traces]),
            corrupted=Estimate.of([trace.corrupted for trace in traces]),
            total=Estimate.of([trace.clean - trace.corrupted for trace in traces]),
            indirect={
                kind: {
                    role: by_layer
                    for role in ROLES
                    if (by_layer := _layers([_at(t, kind, role) for t in traces]))
                }
                for kind in first.restored
            },
            entering={
                severed: _layers([t.entering[severed] - t.corrupted for t in traces])
                for severed in first.entering
            },
            gap={
                part: _layers(
                    [t.entering["nothing"] - t.entering[part] for t in traces]
                )
                for part in parts
            },
        )


def _at(trace: FactTrace, kind: Kind, role: Role) -> Tensor | None:
    """Return the mean effect over the role's positions, ``(layer,)``."""
    columns = [
        index
        for index, position in enumerate(trace.positions)
        if trace.prompt.role(position) == role
    ]
    if not columns:
        return None
    return trace.restored[kind][:, columns].mean(dim=1) - trace.corrupted


def _layers(rows: Sequence[Tensor | None]) -> list[Estimate]:
    """Return the estimate of every layer over the facts that have a row."""
    present = [row for row in rows if row is not None]
    if not present:
        return []
    return [Estimate.of(column) for column in torch.stack(present).T.tolist()]
