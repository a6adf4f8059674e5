"""The Flower app that ``flwr run`` is given: two names, and the settings' defaults.

The code itself is the installed package's, on the server as in the clients, so that a
simulation runs from a checkout and from an installed wheel alike.
"""

import json
from pathlib import Path

from simulations.settings import ExperimentSettings

_APP = '''"""Written by collabedit; the apps are those of the installed package."""

from simulations.client_app import app as client_app
from simulations.server_app import app as server_app

__all__ = ["client_app", "server_app"]
'''

_PROJECT = """[project]
name = "flwr-collabedit-run"
version = "0.1.0"
description = "A simulation of collaborative knowledge editing."
license = { file = "LICENSE" }
dependencies = ["flwr>=1.41"]

[tool.flwr.app]
publisher = "flwr-collabedit"
fab-format-version = 1
flwr-version-target = "1.41.0"
fab-include = ["collabedit_run/*.py", "LICENSE"]

[tool.flwr.app.components]
serverapp = "collabedit_run.apps:server_app"
clientapp = "collabedit_run.apps:client_app"

[tool.flwr.app.config]
"""


def write_app(folder: Path) -> Path:
    """Write the app into ``folder`` and return it."""
    package = folder / "collabedit_run"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "apps.py").write_text(_APP, encoding="utf-8")
    (folder / "LICENSE").write_text("Apache-2.0\n", encoding="utf-8")
    (folder / "pyproject.toml").write_text(
        _PROJECT + to_toml(ExperimentSettings()), encoding="utf-8"
    )
    return folder


def to_toml(settings: ExperimentSettings) -> str:
    """Return the settings as TOML; a JSON scalar is a TOML scalar."""
    items = settings.to_run_config().items()
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in items)
