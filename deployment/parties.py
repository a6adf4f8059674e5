"""The parties of a demonstration: facts in a file of each party's own."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flwr_collabedit.data.plain import to_plain
from simulations.experiment import clients_rounds
from simulations.settings import ExperimentSettings


@dataclass(frozen=True)
class Party:
    """One party: its name, and what its SuperNode is told."""

    name: str
    node_config: dict[str, str | int]


def write_parties(simulated: ExperimentSettings, folder: Path) -> Sequence[Party]:
    """Write the facts of a simulation's clients, a file each, and return the parties.

    They have the clients' names and, in every round, the same edits as these, so that
    the federation is the same. Plain records have no place for questions about the
    subject's other facts: what a simulation calls retention is not scored.

    Parameters
    ----------
    simulated : ExperimentSettings
        The simulation's, whose rounds are of one size for each client.
    folder : Path
        Gets a folder a party, with ``facts.json`` and, later, the party's state.
    """
    parties = []
    for index, rounds in enumerate(clients_rounds(simulated)):
        name = f"client-{index}"
        home = folder / name
        home.mkdir(parents=True, exist_ok=True)
        records = [to_plain(case) for cases in rounds for case in cases]
        facts = home / "facts.json"
        facts.write_text(json.dumps(records, indent=1), encoding="utf-8")
        config: dict[str, str | int] = {
            "name": name,
            "model": simulated.model,
            "dtype": simulated.dtype,
            "edits-path": str(facts),
            "edits-format": "plain",
            "edits-per-round": len(rounds[0]),
            "state-folder": str(home / "state"),
        }
        parties.append(Party(name, config))
    return parties
