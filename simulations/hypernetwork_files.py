"""Where settings find the network that MALMEN and MEND edit with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr_collabedit.errors import HypernetworkError
from simulations.settings import ExperimentSettings

_SETTING = "hypernetwork"


def with_absolute_file(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in which a relative file is one of the working directory.

    A config or sweep file can name what ``collabedit train-editor`` wrote; Flower's
    processes have working directories of their own.
    """
    file = values.get(_SETTING)
    if not file or not isinstance(file, str):
        return dict(values)
    return {**values, _SETTING: str(Path(file).resolve())}


def check_file(settings: ExperimentSettings) -> None:
    """Check that the network is there, before any work.

    Raises
    ------
    HypernetworkError
        With the command that trains one.
    """
    file = settings.hypernetwork
    if file and not Path(file).is_file():
        raise HypernetworkError(
            f"Expected a trained network for {settings.editor.upper()} at '{file}', "
            f"found none. Train one: collabedit train-editor {settings.model} "
            f"--editor {settings.editor} --out {file}"
        )
