"""What a deployment came to: gaps to the simulation, and what each message cost."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from flwr_collabedit.errors import CollabEditError
from flwr_collabedit.export.edit_folder import DELTA_FILE

_LINE = re.compile(
    r"(?P<party>[\w-]+): (?:model loaded in (?P<load>[\d.]+) s"
    r"|targets: (?P<optimised>\d+) optimised, (?P<kept>\d+) kept)"
)


@dataclass(frozen=True)
class WeightGap:
    """How far an edited weight's delta is from the simulation's.

    Attributes
    ----------
    name : str
        The weight's.
    gap : float
        ``||deployed - simulated||_F / ||simulated||_F``.
    is_equal : bool
        Whether all bits are the same.
    """

    name: str
    gap: float
    is_equal: bool


@dataclass(frozen=True)
class MessageCost:
    """What a party did for one message, from its SuperNode's log.

    Attributes
    ----------
    load_s : float
        Seconds in which the model was loaded.
    optimised, kept : int or None
        Targets that took gradient steps, and those found in the state folder; ``None``
        for a message that asks for no targets: an evaluation.
    """

    load_s: float
    optimised: int | None = None
    kept: int | None = None


def weight_gaps(deployed: Path, simulated: Path) -> list[WeightGap]:
    """Return the gaps between the deltas of two run folders.

    Raises
    ------
    CollabEditError
        If they edit different weights, or the simulation left one as it was: there is
        nothing to compare then.
    """
    found, expected = (load_file(f / DELTA_FILE) for f in (deployed, simulated))
    if found.keys() != expected.keys():
        raise CollabEditError(
            f"Expected deltas of {sorted(expected)}, found those of {sorted(found)}."
        )
    gaps = []
    for name, delta in expected.items():
        norm = float(delta.norm())
        if norm == 0:
            raise CollabEditError(f"The simulation left {name!r} as it was.")
        gap = float((found[name] - delta).norm()) / norm
        gaps.append(WeightGap(name, gap, found[name].equal(delta)))
    return gaps


def message_costs(log: Path) -> list[MessageCost]:
    """Return what each message cost, in their order, from a SuperNode's log."""
    costs: list[MessageCost] = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        match = _LINE.search(line)
        if match is None:
            continue
        if match["load"]:
            costs.append(MessageCost(float(match["load"])))
        elif costs:
            counts = int(match["optimised"]), int(match["kept"])
            costs[-1] = MessageCost(costs[-1].load_s, *counts)
    return costs


def summary_of(run: Path) -> dict[str, Any]:
    """Return a finished run's summary.

    Raises
    ------
    CollabEditError
        If the run did not finish.
    """
    path = run / "summary.json"
    if not path.exists():
        raise CollabEditError(f"The run in {run} did not finish; its log says why.")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
