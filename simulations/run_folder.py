"""The run folder: what a simulation writes, each file whole or not at all."""

import json
import math
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import flwr_collabedit
from flwr_collabedit.errors import CheckpointError
from flwr_collabedit.export.edit_folder import package_versions
from flwr_collabedit.fact_tags import TagKey
from flwr_collabedit.files import replacing
from simulations.setting_checks import NODES

CHECKPOINTS = "checkpoints"
"""The folder, in a run folder, of the server's states."""

MAY_CHANGE = {
    *("resume", "output-folder", "cache-folder", "device", "threads-per-client"),
    *("checkpoints", "pooled-reference", "evaluate-every", "evaluate-before"),
    *("health-texts", "health-samples", "generation-tokens", "reference-texts"),
    *("warn-perplexity-increase", "warn-norm-increase", "exchange-timeout"),
}
"""Settings of what is reported or where; all others decide on the weights."""

_MAY_CHANGE_IN_DEPLOYMENTS = {
    *("num-rounds", "num-clients", "min-replies", "fraction-train", "withdraw"),
}
# Of rounds to come; only a simulation splits its facts by them.


class RunFolder:
    """Paths and writers of one run's results.

    ``settings.json``, ``rounds.jsonl``, ``cases/``, ``checkpoints/``,
    ``delta.safetensors``, ``summary.json`` and ``report.md``; clients keep their own
    state under ``clients/``.

    Parameters
    ----------
    path : Path
        Made with its parents; results of an earlier run in it are replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self.rounds = path / "rounds.jsonl"
        self.cases = path / "cases"
        self.conflict_key = path / "clients" / "conflict_key.txt"
        self.checkpoints = path / CHECKPOINTS

    def start(self, settings: Mapping[str, Any], *, resume: bool = False) -> None:
        """Write the resolved settings and what the run was made with.

        With ``resume`` what an interrupted run has written stays.

        Raises
        ------
        CheckpointError
            If that was a run of other settings; nothing is written then.
        """
        if resume:
            self._check_same(settings)
        for name in ("summary.json", "report.md"):
            (self.path / name).unlink(missing_ok=True)
        if not resume:
            self.rounds.unlink(missing_ok=True)
            for folder in (self.path / "personal", self.checkpoints):
                shutil.rmtree(folder, ignore_errors=True)
        made_with = {**package_versions(), "ray": version("ray")}
        self.write_json(
            "settings.json",
            {"settings": settings, "packages": made_with, "commit": git_commit()},
        )

    def make_conflict_key(self) -> None:
        """Make the clients' shared key, unless an interrupted run has made it."""
        if not self.conflict_key.exists():
            self.conflict_key.parent.mkdir(parents=True, exist_ok=True)
            TagKey.generate().to_file(self.conflict_key)

    def _check_same(self, settings: Mapping[str, Any]) -> None:
        path = self.path / "settings.json"
        if not path.exists():
            return
        before = json.loads(path.read_text(encoding="utf-8"))["settings"]
        may_change = MAY_CHANGE
        if settings.get("data") == NODES:
            may_change = MAY_CHANGE | _MAY_CHANGE_IN_DEPLOYMENTS
        for name in settings:
            if name not in may_change and settings[name] != before.get(name):
                raise CheckpointError(
                    f"The run in {self.path} has {name} = {before.get(name)!r}, found "
                    f"{settings[name]!r}. Go on with the same settings, or start "
                    "another run in a folder of its own."
                )

    def client_state(self, name: str) -> Path:
        """Return the folder that a client calls its own."""
        return self.path / "clients" / name

    def personal_state(self, name: str) -> Path:
        """Return the folder of a client's personal model, which is of this run."""
        return self.path / "personal" / name

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file whole."""
        self.write_text(name, json.dumps(content, indent=2) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file whole."""
        with replacing(self.path / name) as draft:
            draft.write_text(text, encoding="utf-8")

    def append_round(self, report: Mapping[str, Any]) -> None:
        """Add one line to the rounds' metrics, after those of the rounds before.

        A run that was interrupted may have told of rounds that it does again, or have
        got half-way through a line.
        """
        lines = []
        if self.rounds.exists():
            lines = self.rounds.read_text(encoding="utf-8").splitlines()
        earlier = [line for line in lines if _round_of(line) < report["server_round"]]
        text = "\n".join([*earlier, json.dumps(report)])
        self.write_text(self.rounds.name, text + "\n")


def _round_of(line: str) -> float:
    """Return whose line this is; of half a line, a round after all others."""
    try:
        return float(json.loads(line)["server_round"])
    except ValueError:
        return math.inf


def git_commit() -> str:
    """Return the commit of the library's checkout, or ``unknown`` outside of one.

    The library's, because Flower runs this file from a bundle that has no history.
    """
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=Path(flwr_collabedit.__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"
