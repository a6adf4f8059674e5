"""A deployment on this machine, and its weights beside the simulation's.

``python -m deployment.demo`` (``make deployment-demo``) starts a SuperLink with TLS and
three SuperNodes with keys, each with facts of its own, edits the embedded model through
``flwr run``, and ends all of them.
"""

import json
import signal
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from deployment.credentials import NodeKeys, make_node_keys, make_server_certificate
from deployment.outcome import WeightGap, summary_of, weight_gaps
from deployment.parties import Party, write_parties
from deployment.processes import CONNECTION, HOST, Federation
from deployment.tables import (
    messages_table,
    processes_table,
    scores_table,
    weights_table,
)
from flwr_collabedit.cli.terminal import ExitCode, Terminal, terminal
from simulations.engines import Engine
from simulations.flower_app import to_toml, write_app
from simulations.launch import read_settings, run
from simulations.settings import ExperimentSettings

TOLERANCE = 1e-6
"""Largest relative Frobenius gap to the simulation's deltas, with a float32 model."""

_STRANGER = "stranger"
_REFUSED = "Connection attempt failed"  # in a SuperNode's log


def main(
    insecure: Annotated[
        bool, typer.Option("--insecure", help="No TLS, and no keys of SuperNodes.")
    ] = False,
    edits: Annotated[int, typer.Option(help="Facts, of all parties.", min=3)] = 24,
    out: Annotated[
        Path | None, typer.Option(help="Folder; made under runs/ by default.")
    ] = None,
) -> None:
    """Deploy three parties on this machine and compare with the simulation.

    Exit code: 0 if the weights agree, nobody else got in and nothing was left running;
    1 if not.
    """
    # As Ctrl-C: what was started is ended.
    signal.signal(signal.SIGTERM, _interrupt)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = (out or Path("runs") / f"deployment-{stamp}").resolve()
    with terminal() as told:
        settings = read_settings("deployment", [], folder / "run")
        alike = simulation_of(settings, edits, folder / "simulation")
        told.note("Simulating the same federation in this process")
        run(alike, Engine.IN_PROCESS)
        parties = write_parties(alike, folder / "parties")
        began = time.perf_counter()
        federation, nodes = deploy(settings, parties, insecure, told)
        seconds = time.perf_counter() - began
        gaps = weight_gaps(settings.folder, alike.folder)
        summary = summary_of(settings.folder)
        [report] = summary["rounds"]
        told.result(
            {},
            weights_table(gaps, TOLERANCE),
            scores_table(summary_of(alike.folder), summary),
            messages_table(federation.started),
            processes_table(federation.started),
            f"A training exchange: {report['seconds']['exchange'] / alike.sweeps:.1f} "
            f"s on average. All of the deployment, from the first process to the end "
            f"of the last: {seconds:.0f} s. Everything is in {folder}",
        )
        problems = wrong(gaps, federation, nodes, len(parties))
        for problem in problems:
            told.warn(problem)
        if problems:
            raise typer.Exit(ExitCode.FOUND_WRONG)


def simulation_of(
    settings: ExperimentSettings, num_edits: int, folder: Path
) -> ExperimentSettings:
    """Return the simulation of a deployment whose parties share so many known facts."""
    update = {
        "data": "embedded",
        "num_edits": num_edits,
        "health_samples": 0,  # the parties bring no texts
        "output_folder": str(folder),
    }
    return settings.model_copy(update=update)


def deploy(
    settings: ExperimentSettings,
    parties: Sequence[Party],
    insecure: bool,
    told: Terminal,
) -> tuple[Federation, int]:
    """Run the federation; return it, ended, and how many SuperNodes were in it.

    Unless ``insecure``, one more SuperNode tries to take part, with a key that nobody
    has registered.
    """
    home = settings.folder.parent / "flower"
    certificate, keys = None, dict[str, NodeKeys]()
    if not insecure:
        hosts = [HOST, "localhost"]
        certificate = make_server_certificate(home / "certificates", hosts)
        names = [*(party.name for party in parties), _STRANGER]
        keys = {name: make_node_keys(home / "keys", name) for name in names}
    settings.folder.mkdir(parents=True, exist_ok=True)
    config = settings.folder / "run_config.toml"
    config.write_text(to_toml(settings), encoding="utf-8")
    app = write_app(home / "collabedit-run")
    with Federation(home, certificate, settings.threads_per_client) as federation:
        told.note("Starting the SuperLink")
        federation.start_superlink()
        for party in parties:
            told.note(f"Starting the SuperNode of {party.name}")
            key = keys.get(party.name)
            if key is not None:
                federation.flwr("supernode", "register", str(key.public), CONNECTION)
            federation.start_supernode(party.name, party.node_config, key)
        if keys:
            told.note("Starting a SuperNode that nobody has registered")
            config_of_another = parties[0].node_config
            federation.start_supernode(_STRANGER, config_of_another, keys[_STRANGER])
        told.note(f"flwr run {app} {CONNECTION}")
        federation.flwr(
            *("run", str(app), CONNECTION, "--stream", "--run-config", str(config)),
            is_shown=True,
        )
        listed = federation.flwr("supernode", "list", CONNECTION, "--format", "json")
    return federation, len(json.loads(listed)["nodes"])


def wrong(
    gaps: Sequence[WeightGap], federation: Federation, num_nodes: int, num_parties: int
) -> list[str]:
    """Return what is not as it should be after a deployment, in sentences."""
    found = []
    for gap in gaps:
        if not gap.gap <= TOLERANCE:  # nor is it, if it is not a number
            found.append(
                f"{gap.name} differs by {gap.gap:.1e}, more than {TOLERANCE:.0e}."
            )
    if num_nodes != num_parties:
        found.append(f"Expected {num_parties} SuperNodes, found {num_nodes}.")
    for process in federation.started:
        if process.what.endswith(_STRANGER) and _REFUSED not in process.log.read_text(
            encoding="utf-8", errors="replace"
        ):
            found.append("A SuperNode that nobody has registered was not turned away.")
    left = federation.left_over()
    if left:
        found.append(f"Processes that were started are running still: {left}.")
    return found


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    typer.run(main)
