"""Flower's processes of a federation on the loopback: started, and ended to the last.

Each leads a session of its own, has a Flower home of its own and logs to a file in it.
"""

import json
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from deployment.credentials import NodeKeys, ServerCertificate
from flwr_collabedit.errors import CollabEditError
from simulations.sessions import end_session, members
from simulations.superlink import flower_environment, free_port, script

HOST = "127.0.0.1"
CONNECTION = "loopback"
"""What the SuperLink is called in the configuration of ``flwr``."""

_START_S = 120
_COMMAND_S = 900


class DeploymentError(CollabEditError):
    """A process of Flower's did not do what it was started for."""


@dataclass(frozen=True)
class Started:
    """A process that was started: what it is, its id, its port, its log."""

    what: str
    pid: int
    port: int
    log: Path


@dataclass
class Federation:
    """A SuperLink and SuperNodes on this machine; a context that ends them all.

    Parameters
    ----------
    folder : Path
        Gets a Flower home for each process, with its log.
    certificate : ServerCertificate or None
        Of the SuperLink, which then takes registered SuperNodes only; ``None`` is
        plain HTTP, open to whoever reaches the port.
    threads : int
        Threads of numerical libraries in each process.

    Attributes
    ----------
    started : list of Started
        In the order in which they were started, also after they were ended.
    """

    folder: Path
    certificate: ServerCertificate | None = None
    threads: int = 1
    started: list[Started] = field(default_factory=list)
    _ends: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        """Start nothing yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all, the last started first."""
        self._ends.close()

    def start_superlink(self) -> None:
        """Start the SuperLink, wait until it answers, and tell ``flwr`` of it.

        Raises
        ------
        DeploymentError
            If it does not answer.
        """
        home, port = self._home("superlink"), free_port()
        security = ["--insecure"]
        if self.certificate is not None:
            security = [
                *("--ssl-ca-certfile", str(self.certificate.authority)),
                *("--ssl-certfile", str(self.certificate.certificate)),
                *("--ssl-keyfile", str(self.certificate.key)),
                "--enable-supernode-auth",
            ]
        started = self._start(
            "SuperLink",
            [
                *(script("flower-superlink"), *security),
                *("--host", HOST, "--port", str(port)),
                *("--database", str(home / "state.db")),
                "--disable-runtime-dependency-installation",
            ],
            home,
            port,
        )
        self._wait_until_healthy(started)
        trust = "insecure = true"
        if self.certificate is not None:
            trust = f'root-certificates = "{self.certificate.authority}"'
        (self._home("flwr") / "config.toml").write_text(
            f'[superlink.{CONNECTION}]\naddress = "{HOST}:{port}"\n{trust}\n',
            encoding="utf-8",
        )

    def start_supernode(
        self,
        name: str,
        node_config: Mapping[str, str | int],
        keys: NodeKeys | None = None,
    ) -> None:
        """Start a SuperNode of the SuperLink; it connects while the caller goes on.

        Parameters
        ----------
        name : str
            Names its home.
        node_config : mapping
            What the party brings, see `flwr_collabedit.client_app`.
        keys : NodeKeys or None
            With which it says who it is.
        """
        home, port = self._home(name), free_port()
        settings = home / "node.toml"
        # A JSON scalar is a TOML scalar.
        lines = (f"{key} = {json.dumps(value)}\n" for key, value in node_config.items())
        settings.write_text("".join(lines), encoding="utf-8")
        security = ["--insecure"]
        if self.certificate is not None:
            security = ["--root-certificates", str(self.certificate.authority)]
        if keys is not None:
            security += ["--auth-supernode-private-key", str(keys.private)]
        self._start(
            f"SuperNode {name}",
            [
                *(script("flower-supernode"), *security),
                *("--superlink", f"{HOST}:{self.started[0].port}"),
                *("--host", HOST, "--port", str(port)),
                *("--node-config", str(settings)),
            ],
            home,
            port,
        )

    def flwr(self, *arguments: str, is_shown: bool = False) -> str:
        """Run a ``flwr`` command to its end; return what it printed.

        With ``is_shown`` it prints to standard error instead, line by line.

        Raises
        ------
        DeploymentError
            If it fails.
        """
        done = subprocess.run(
            [script("flwr"), *arguments],
            env=self._environment(self._home("flwr")),
            cwd=self.folder,
            stdout=sys.stderr if is_shown else subprocess.PIPE,
            stderr=sys.stderr if is_shown else subprocess.STDOUT,
            text=True,
            timeout=_COMMAND_S,
            check=False,
        )
        printed = done.stdout or ""
        if done.returncode != 0:
            raise DeploymentError(
                f"`flwr {' '.join(arguments)}` ended with {done.returncode}. "
                f"{printed[-2000:]}"
            )
        return printed

    def left_over(self) -> list[int]:
        """Return the processes that have a home of this federation, wherever they are.

        It does not rely on sessions, by which they are ended. Without ``/proc``: none.
        """
        mark = f"FLWR_HOME={self.folder}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in path.read_bytes():
                    found.append(int(path.parent.name))
            except OSError:  # it has just ended, or is another user's
                continue
        return found

    def _start(
        self, what: str, command: Sequence[str], home: Path, port: int
    ) -> Started:
        path = home / "process.log"
        log = self._ends.enter_context(path.open("w", encoding="utf-8"))
        process = subprocess.Popen(
            command,
            env=self._environment(home),
            cwd=home,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self._ends.callback(process.wait)
        self._ends.callback(end_session, process.pid)
        self.started.append(Started(what, process.pid, port, path))
        return self.started[-1]

    def _home(self, name: str) -> Path:
        home = self.folder / name
        home.mkdir(parents=True, exist_ok=True)
        return home

    def _environment(self, home: Path) -> dict[str, str]:
        return {**flower_environment(home), "OMP_NUM_THREADS": str(self.threads)}

    def _wait_until_healthy(self, started: Started) -> None:
        scheme, trust = "http", None
        if self.certificate is not None:
            scheme = "https"
            trust = ssl.create_default_context(cafile=str(self.certificate.authority))
        url = f"{scheme}://{HOST}:{started.port}/health"
        end = time.monotonic() + _START_S
        while time.monotonic() < end and members(started.pid):
            try:
                with urllib.request.urlopen(url, timeout=2, context=trust):
                    return
            except OSError:  # it does not listen yet
                time.sleep(0.2)
        raise DeploymentError(
            f"The SuperLink did not answer on port {started.port}; {started.log} says "
            "why."
        )
