"""A local SuperLink for simulations that ends with the program that started it.

``flwr run`` would start one itself, which keeps its first caller's folder and
environment and stays behind. It uses ours, since ours answers at the address that it
looks at: free ports, a Flower home of its own, no environment made for every run.
"""

import os
import shutil
import socket
import subprocess
import sysconfig
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

from flwr_collabedit.errors import ConfigurationError
from simulations.sessions import end_session

_START_S = 120


def script(name: str) -> str:
    """Return the path of a command of Flower's: beside this Python, or on the PATH.

    Raises
    ------
    ConfigurationError
        If it is in neither.
    """
    beside = Path(sysconfig.get_path("scripts")) / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise ConfigurationError(
            f"Expected Flower's command {name!r} at '{beside}' or on the PATH, found "
            "none. Install 'flwr[simulation]' into this Python's environment."
        )
    return found


def flower_environment(home: Path) -> dict[str, str]:
    """Return an environment for a Flower process with a home of its own.

    It finds the commands beside this Python, makes no environment for a run, and asks
    nobody on the internet.
    """
    return {
        **os.environ,
        "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(home),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
    }


@contextmanager
def local_superlink(home: Path) -> Iterator[Mapping[str, str]]:
    """Start a SuperLink; give the environment in which ``flwr run`` reaches it."""
    home.mkdir(parents=True, exist_ok=True)
    port, control_port = free_port(), free_port()
    environment = {
        **flower_environment(home),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(port),
        "FLWR_LOCAL_CONTROL_API_PORT": str(control_port),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    command = [
        *(script("flower-superlink"), "--insecure", "--simulation"),
        *("--isolation", "subprocess", "--disable-runtime-dependency-installation"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--database", str(home / "state.db")),
    ]
    log = (home / "superlink.log").open("w", encoding="utf-8")
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=home,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        _wait_until_healthy(port, process, home / "superlink.log")
        yield environment
    finally:
        end_session(process.pid)
        process.wait()
        log.close()


def _wait_until_healthy(
    port: int, process: "subprocess.Popen[bytes]", log: Path
) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise ConfigurationError(
        f"Flower's SuperLink did not answer on port {port}; {log} says why."
    )


def free_port() -> int:
    """Return a port of the loopback that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
