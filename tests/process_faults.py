"""What becomes of a run whose processes are killed: ``python -m tests.process_faults``.

A run of the embedded model loses an actor of Ray's, a SuperNode, its ServerApp or its
SuperLink to SIGKILL after its first round. The weights must be, to the bit, those of a
run in this process in which only the clients took part that the report names.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Annotated, Any

import typer
from flwr.app import Context, Message, MessageType
from rich.console import Console
from rich.table import Table

from deployment.parties import write_parties
from deployment.processes import CONNECTION, DeploymentError, Federation
from flwr_collabedit.export.edit_folder import DELTA_FILE
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.payloads import CONFIG
from simulations import client_app, server_app
from simulations.flower_app import to_toml, write_app
from simulations.in_process import run_in_process
from simulations.sessions import end_session, members
from simulations.settings import ExperimentSettings

ROOT = Path(__file__).resolve().parents[1]
ACTOR, SERVER_APP = "ray::ClientAppActor", "flwr-simulation"
SUPERLINK = "flower-superlink"
HANGS = "does not end"
_RUN_S = 240
_STATUS_S = 60
_TELLING = "expected at least"
_POLL_S = 0.05
SETTINGS: dict[str, Any] = {
    "num_clients": 4,
    "num_rounds": 3,
    "num_edits": 24,
    "layer_schedule": "frozen",
    "second_moment_samples": 500,
    "context_starters": "The",
    "health_samples": 0,
    "pooled_reference": False,
    "evaluate_before": False,
    "exchange_timeout": 200.0,
}
Missing = Mapping[int, tuple[str, ...]]


@dataclass(frozen=True)
class Row:
    """What became of one fault.

    Attributes
    ----------
    fault : str
        Who was killed, with which settings.
    ended : str
        How the run ended, from its record and its log.
    exit_code : str
        Of the command.
    missing : str
        Who is left out, by round, in the run's report.
    weights : str
        Whether they are those expected, and whose these are.
    is_good : bool
        Whether all of it is as it must be.
    """

    fault: str
    ended: str
    exit_code: str
    missing: str
    weights: str
    is_good: bool


def settings(folder: Path, **changes: Any) -> ExperimentSettings:
    """Return the settings of a small run."""
    return ExperimentSettings(output_folder=str(folder), **{**SETTINGS, **changes})


@dataclass(frozen=True)
class Command:
    """A ``collabedit simulate`` that is running, with its log."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def exit_code(self) -> str:
        """Wait for the end and return the exit code."""
        try:
            return str(self.process.wait(_RUN_S))
        except subprocess.TimeoutExpired:
            return HANGS

    def kill(self, named: str) -> None:
        """Kill one process of the run, and no other's, by its command."""
        found = [p for p in members(self.process.pid) if _is(p, named)]
        assert found, f"No process {named!r} to kill; {self.log}"
        os.kill(found[-1], signal.SIGKILL)


@contextmanager
def simulating(own: ExperimentSettings, *options: str) -> Iterator[Command]:
    """Start ``collabedit simulate`` on Ray; end whatever is left of it."""
    own.folder.mkdir(parents=True, exist_ok=True)
    config = own.folder.with_suffix(".toml")
    config.write_text(to_toml(own), encoding="utf-8")
    log = own.folder.with_suffix(".log")
    command = [sys.executable, "-m", "simulations.cli", "simulate", str(config)]
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            [*command, "--cpus", "2", *options],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        try:
            yield Command(process, log)
        finally:
            end_session(process.pid)
            process.wait()


def killed(own: ExperimentSettings, named: str) -> str:
    """Simulate, kill a process after the first round, and return the exit code."""
    with simulating(own) as command:
        if not _wait_for_first_round(own, lambda: command.process.poll() is not None):
            return "no first round"
        command.kill(named)
        return command.exit_code()


def alone(folder: Path, own: ExperimentSettings, missing: Missing) -> Path:
    """Simulate in this process without the missing; return the run's folder."""

    def call(message: Message, context: Context) -> Message:
        asked = Instruction.from_config(message.content.config_records[CONFIG])
        name = f"client-{context.node_config['partition-id']}"
        is_training = message.metadata.message_type == MessageType.TRAIN
        if is_training and name in missing.get(asked.server_round, ()):
            raise RuntimeError("it is missing")
        return client_app.app(message, context)

    folder.mkdir(parents=True, exist_ok=True)
    needed = 1 if missing else own.min_replies
    update = {"output_folder": str(folder), "min_replies": needed}
    config = own.model_copy(update=update).to_run_config()
    run_in_process(server_app.app, call, own.num_clients, config)  # type: ignore[arg-type]
    return folder


def missing_of(folder: Path) -> dict[int, tuple[str, ...]]:
    """Return who was left out of which round, from the run's report."""
    lines = (folder / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        report["server_round"]: names
        for report in map(json.loads, lines)
        if (names := tuple(n for n, c in report["clients"].items() if c["reason"]))
    }


def actor_killed(folder: Path) -> Row:
    """Kill an actor of Ray's; one valid reply is enough."""
    own = settings(folder / "actor", min_replies=1)
    code = killed(own, ACTOR)
    if code != "0":
        ended = _reason(_log_of(own))
        return Row("Ray actor, min-replies 1", ended, code, "", "", code == "1")
    missing = missing_of(own.folder)
    same = _same(own.folder, alone(folder / "actor-alone", own, missing))
    return Row(
        "Ray actor, min-replies 1",
        f"goes on, {_edits(own.folder)} edits",
        code,
        _words(missing),
        f"the survivors': {same}",
        same and bool(missing),
    )


def killed_and_resumed(folder: Path, fault: str, named: str, whole: Path) -> Row:
    """Kill a process where all replies are needed, and go on with ``--resume``."""
    own = settings(folder / named.replace(":", "-"))
    code = killed(own, named)
    ended = _reason(_log_of(own))
    is_finished = (own.folder / "summary.json").exists()
    with simulating(own, "--resume", str(own.folder)) as command:
        second = command.exit_code()
    found, expected = own.folder / DELTA_FILE, whole / DELTA_FILE
    same = found.exists() and found.read_bytes() == expected.read_bytes()
    return Row(
        fault,
        ended,
        f"{code}; resumed: {second}",
        "",
        f"an uninterrupted run's file: {same}",
        # A server that nobody asks any more may have been done already.
        second == "0" and same and code == ("0" if is_finished else "1"),
    )


def supernode_killed(folder: Path, federation: Federation, min_replies: int) -> Row:
    """Kill one of three SuperNodes of a federation that is running."""
    fault = f"SuperNode, min-replies {min_replies} of 3"
    simulated = settings(
        folder / f"node-alone-{min_replies}", num_clients=3, num_rounds=2, num_edits=12
    )
    deployed = settings(
        folder / f"node-{min_replies}",
        **{"data": "nodes", "num_clients": 3, "num_rounds": 2, "num_edits": 200},
        health_samples=50,
        evaluate_every=2,
        min_replies=min_replies,
        exchange_timeout=100.0,
    )
    for party in write_parties(simulated, folder / f"parties-{min_replies}"):
        federation.start_supernode(f"{party.name}-{min_replies}", party.node_config)
    victim = federation.started[-1].pid
    deployed.folder.mkdir(parents=True)
    config = deployed.folder / "run_config.toml"
    config.write_text(to_toml(deployed), encoding="utf-8")
    app = write_app(folder / "flower" / "collabedit-run")
    over = Event()
    killer = Thread(target=_kill_after_first_round, args=(deployed, victim, over))
    killer.start()
    code = "0"
    try:
        log = federation.flwr(
            *("run", str(app), CONNECTION, "--stream", "--run-config", str(config))
        )
    except DeploymentError as error:
        log = str(error)
        code = log.partition("ended with ")[2].partition(".")[0]
    finally:
        over.set()
        killer.join()
    ended = _final_status(federation)
    missing = missing_of(deployed.folder)
    if not (deployed.folder / "summary.json").exists():
        told = _reason(log)
        is_loud = ended == "finished:failed" and "client-2" in told
        is_good = is_loud and min_replies == 3
        return Row(fault, f"{ended}: {told}", code, _words(missing), "", is_good)
    reference = alone(simulated.folder, simulated, missing)
    same = _same(deployed.folder, reference)
    is_good = same and missing == {2: ("client-2",)} and min_replies == 2
    return Row(
        *(fault, f"{ended}, {_edits(deployed.folder)} edits", code),
        *(_words(missing), f"the survivors': {same}", is_good),
    )


def _final_status(federation: Federation) -> str:
    """Return how Flower lists the run, once it is not running any more."""
    end = time.monotonic() + _STATUS_S
    while True:
        listed = federation.flwr("list", CONNECTION, "--format", "json")
        status = str(json.loads(listed)["runs"][0]["status"])
        if status.startswith("finished") or time.monotonic() > end:
            return status
        time.sleep(1)


def _kill_after_first_round(own: ExperimentSettings, leader: int, over: Event) -> None:
    if _wait_for_first_round(own, over.is_set):
        for process in members(leader):
            os.kill(process, signal.SIGKILL)


def _wait_for_first_round(own: ExperimentSettings, is_over: Callable[[], bool]) -> bool:
    """Return whether there is a first checkpoint before the run is over."""
    checkpoint = own.folder / "checkpoints" / "round-00001.safetensors"
    end = time.monotonic() + _RUN_S
    while not checkpoint.exists():
        if is_over() or time.monotonic() > end:
            return False
        time.sleep(_POLL_S)
    return True


def _is(process: int, named: str) -> bool:
    try:
        words = Path(f"/proc/{process}/cmdline").read_text().split("\0")
    except OSError:  # it has just ended
        return False
    # A script comes after its Python; Ray's processes name themselves.
    return any(Path(word).name.startswith(named) for word in words[:2])


def _same(folder: Path, expected: Path) -> bool:
    found = folder / DELTA_FILE
    return found.exists() and _arrays(found) == _arrays(expected / DELTA_FILE)


def _arrays(path: Path) -> dict[str, bytes]:
    from safetensors.torch import load_file

    return {n: t.numpy().tobytes() for n, t in load_file(path).items()}


def _edits(folder: Path) -> int:
    lines = (folder / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
    return sum(json.loads(line)["num_edits"] for line in lines)


def _words(missing: Missing) -> str:
    return "; ".join(f"round {n}: {', '.join(who)}" for n, who in missing.items())


def _log_of(own: ExperimentSettings) -> str:
    return own.folder.with_suffix(".log").read_text(errors="replace")


def _reason(log: str) -> str:
    """Return why the strategy has ended a run, or else the log's last words."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING in line]
    if not telling:
        return lines[-1].partition(" Its finished")[0]
    return _TELLING + telling[-1].partition(_TELLING)[2].partition(". Mend")[0][:200]


def cases(folder: Path) -> dict[str, Callable[[], Row]]:
    """Return the faults by name; each may be run alone."""

    def resumed(fault: str, named: str) -> Row:
        whole = folder / "whole"
        if not (whole / DELTA_FILE).exists():
            alone(whole, settings(whole), {})
        return killed_and_resumed(folder, fault, named, whole)

    def node(min_replies: int) -> Row:
        home = folder / f"flower-{min_replies}"
        with Federation(home) as federation:
            federation.start_superlink()
            return supernode_killed(folder, federation, min_replies)

    return {
        "actor": lambda: actor_killed(folder),
        "actor-all": lambda: resumed("Ray actor, all needed", ACTOR),
        "serverapp": lambda: resumed("ServerApp's process", SERVER_APP),
        "superlink": lambda: resumed("SuperLink", SUPERLINK),
        "supernode": lambda: node(2),
        "supernode-all": lambda: node(3),
    }


def main(
    names: Annotated[list[str] | None, typer.Argument()] = None,
    keep: Path | None = None,
) -> None:
    """Print the table; end with 1 if a row is not as it must be."""
    table = Table(title="One process is killed after the first round")
    for column in ("killed", "what happened", "exit code", "left out", "weights"):
        table.add_column(column)
    good = True
    logging.disable(logging.CRITICAL)  # of the runs in this process
    with tempfile.TemporaryDirectory() as temporary:
        every = cases((keep or Path(temporary)).resolve())
        for name in names or every:
            began = time.monotonic()
            row = every[name]()
            good &= row.is_good
            ended = f"{row.ended} ({time.monotonic() - began:.0f} s in all)"
            table.add_row(row.fault, ended, row.exit_code, row.missing, row.weights)
    Console(width=170).print(table)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    typer.run(main)
