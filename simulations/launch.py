"""Run a simulation from its config file.

With the ``ray`` engine this is ``flwr run`` on a local SuperLink of its own, see
`simulations.superlink`.
"""

import subprocess
import sys
import tomllib
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path

from flwr_collabedit.errors import ConfigurationError, nearest
from flwr_collabedit.files import check_writable
from simulations.engines import Engine
from simulations.flower_app import to_toml, write_app
from simulations.hypernetwork_files import check_file, with_absolute_file
from simulations.settings import ExperimentSettings
from simulations.superlink import local_superlink, script

_CONFIGS = Path(__file__).parent / "configs"


def read_settings(
    config: str | Path, overrides: list[str], output: Path | None = None
) -> ExperimentSettings:
    """Return a config's settings with overrides and an absolute run folder.

    Parameters
    ----------
    config : str or Path
        A TOML file, or the name of a shipped one.
    overrides : list of str
        ``NAME=VALUE`` in TOML.
    output : Path or None
        The run folder; ``None`` for the config's, or else one under ``runs``.

    Raises
    ------
    ConfigurationError
        If there is no such config, or a setting is unknown or wrong.
    """
    path = _find(config)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"Expected TOML in '{path}', found {error}.") from None
    for text in overrides:
        try:
            values |= tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(
                f"Expected --set NAME=VALUE in TOML, found {text!r}: {error}. Put "
                "quotes around text."
            ) from None
    if output is not None or not values.get("output-folder"):
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        folder = output or Path("runs") / f"{path.stem}-{stamp}"
        values["output-folder"] = str(folder.resolve())
    return ExperimentSettings.from_run_config(with_absolute_file(values))


def _find(config: str | Path) -> Path:
    shipped = {path.stem: path for path in _CONFIGS.glob("*.toml")}
    if Path(config).is_file():
        return Path(config)
    if str(config) in shipped:
        return shipped[str(config)]
    raise ConfigurationError(
        f"Expected a config file at '{config}' or the name of a shipped one, found "
        f"none. {nearest(str(config), shipped)}"
    )


def run(
    settings: ExperimentSettings,
    engine: Engine = Engine.RAY,
    *,
    cpus: int = 2,
    gpus_per_client: float = 0.0,
    environment: Mapping[str, str] | None = None,
    log_to_stderr: bool = False,
) -> None:
    """Run a simulation to its end; its results are in ``settings.folder``.

    Parameters
    ----------
    settings : ExperimentSettings
        What to run.
    engine : Engine
        What runs the clients.
    cpus, gpus_per_client
        For ``ray``: CPU cores for all clients, and the GPU share of one.
    environment : Mapping, optional
        For ``ray``: that of a running SuperLink, see
        `simulations.superlink.local_superlink`; one is started where it is missing.
    log_to_stderr : bool
        For ``ray``: keep standard output for the caller.

    Raises
    ------
    ConfigurationError
        If the settings are a deployment's, or the folder cannot be written to.
    HypernetworkError
        If the network to edit with is not there.
    """
    if settings.is_deployment:
        raise ConfigurationError(
            f"Expected facts to spread over clients, found data = {settings.data!r}, "
            "which leaves them to SuperNodes. Start it with `flwr run`, see "
            "docs/deployment.md."
        )
    check_file(settings)
    check_writable(settings.folder)
    settings.folder.mkdir(parents=True, exist_ok=True)
    (settings.folder / "summary.json").unlink(missing_ok=True)
    if engine is Engine.IN_PROCESS:
        import torch

        from simulations import client_app, server_app
        from simulations.in_process import run_in_process

        # Server and clients are one process here, and sweeps run several: with more
        # threads than cores torch becomes ten times as slow.
        torch.set_num_threads(settings.threads_per_client)
        run_in_process(
            server_app.app,
            client_app.app,
            settings.num_clients,
            settings.to_run_config(),
        )
        return
    config = settings.folder / "run_config.toml"
    config.write_text(to_toml(settings), encoding="utf-8")
    app = write_app(settings.folder / "flower" / "collabedit-run")
    federation = (
        f"num-supernodes={settings.num_clients} client-resources-num-cpus=1 "
        f"client-resources-num-gpus={gpus_per_client} init-args-num-cpus={cpus}"
    )
    link = (
        nullcontext(environment)
        if environment is not None
        else local_superlink(settings.folder / "flower")
    )
    with link as environment:
        subprocess.run(
            [
                *(script("flwr"), "run", str(app), "--stream"),
                *("--run-config", str(config), "--federation-config", federation),
            ],
            env=environment,
            stdout=sys.stderr if log_to_stderr else None,
            check=False,
        )
