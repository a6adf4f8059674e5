"""A sweep file: what is fixed, what varies, and the cells that follow from it.

    [fixed]                 # settings that every cell has
    num-clients = 10

    [axes]                  # lists of values; the cells are their product
    num-edits = [500, 1000]
    seed = [0, 1, 2]

    [[methods]]             # settings that belong together, under a name
    name = "CollabEdit, 4 sweeps"
    sweeps = 4

A setting is any of `simulations.settings`. A method's setting replaces the fixed one.
"""

import hashlib
import itertools
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr_collabedit.errors import ConfigurationError, nearest, shorten
from simulations.hypernetwork_files import with_absolute_file
from simulations.settings import ExperimentSettings

Settings = dict[str, Any]

SWEEP_FOLDERS = ("output-folder", "cache-folder")
"""Settings that a sweep chooses itself: they say where, not what."""

_TABLES = ("fixed", "axes", "methods")
_LONGEST_VALUE = 32


@dataclass(frozen=True)
class Cell:
    """One simulation of a sweep.

    Attributes
    ----------
    method : str
        Name of the ``[[methods]]`` table, or empty.
    axes : Mapping of str to scalar
        The cell's value on every axis.
    settings : ExperimentSettings
        Complete, with the cell's own run folder.
    """

    method: str
    axes: Mapping[str, Any]
    settings: ExperimentSettings

    @property
    def name(self) -> str:
        """The name of the run folder."""
        return self.settings.folder.name

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.settings.folder


def read_sweep(path: Path, output: Path) -> list[Cell]:
    """Return the cells of a sweep file, methods outermost, axes in the file's order.

    Parameters
    ----------
    path : Path
        The TOML file.
    output : Path
        The sweep's folder; cells go to ``cells/`` and share ``cache/`` in it.

    Raises
    ------
    ConfigurationError
        If the file has an unknown key, an empty axis, a setting that is given twice or
        any cell has a wrong value. Nothing is written.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(
            f"Expected a sweep file in TOML at '{path}': {error}."
        ) from None
    _check_keys(path, content)
    axes: dict[str, list[Any]] = content.get("axes", {})
    points = [
        dict(zip(axes, values, strict=True))
        for values in itertools.product(*axes.values())
    ]
    return [
        _cell(name, {**content.get("fixed", {}), **own}, point, output.resolve())
        for name, own in _methods(content)
        for point in points
    ]


def varying_settings(cells: list[Cell]) -> list[str]:
    """Return the settings that differ between cells, in the settings' order."""
    rows = [cell.settings.to_run_config() for cell in cells]
    return [
        name
        for name in rows[0]
        if name not in SWEEP_FOLDERS and len({row[name] for row in rows}) > 1
    ]


def same_experiment(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two runs' settings agree in all but where their files lie."""
    return _meaning(one) == _meaning(other)


def _meaning(settings: Mapping[str, Any]) -> Settings:
    return {k: v for k, v in settings.items() if k not in SWEEP_FOLDERS}


def _check_keys(path: Path, content: Mapping[str, Any]) -> None:
    for table in content:
        if table not in _TABLES:
            raise ConfigurationError(
                f"Unknown table {table!r} in the sweep file '{path}'. "
                f"{nearest(table, _TABLES)}"
            )
    methods = content.get("methods", [])
    tables = [content.get("fixed", {}), content.get("axes", {}), methods]
    if [type(table) for table in tables] != [dict, dict, list]:
        raise ConfigurationError(
            f"Expected [fixed] and [axes] tables and [[methods]] in '{path}', found "
            f"{shorten(tables)}. See simulations/sweeps/ for examples."
        )
    axes, fixed = content.get("axes", {}), content.get("fixed", {})
    for name, values in axes.items():
        if not isinstance(values, list) or not values:
            raise ConfigurationError(
                f"Expected a list of at least one value for the axis {name!r} in "
                f"'{path}', found {values!r}. Put a single value into [fixed]."
            )
        if len({json.dumps(value) for value in values}) < len(values):
            raise ConfigurationError(
                f"Expected different values on the axis {name!r} in '{path}', found "
                f"{shorten(values)}. Remove the repeated one."
            )
    for where, table in (("[fixed]", fixed), *_methods(content)):
        for name in table:
            if name in axes:
                raise ConfigurationError(
                    f"{name!r} is an axis and set by {where} too, in '{path}'. Keep "
                    "one of the two."
                )
    _check_settings(path, [fixed, axes, *(own for _, own in _methods(content))])


def _check_settings(path: Path, tables: list[Settings]) -> None:
    known = set(ExperimentSettings().to_run_config()) - {"output-folder"}
    for name in itertools.chain.from_iterable(tables):
        if name not in known:
            raise ConfigurationError(
                f"Unknown setting {name!r} in the sweep file '{path}'. "
                f"{nearest(name, known)} A sweep chooses the run folders itself."
            )


def _methods(content: Mapping[str, Any]) -> Iterator[tuple[str, Settings]]:
    methods = content.get("methods", [])
    names = [method.get("name") for method in methods]
    if len(set(names)) < len(names) or not all(isinstance(n, str) and n for n in names):
        raise ConfigurationError(
            "Expected every [[methods]] table to have a name of its own, found "
            f'{shorten(names)}. Add name = "..." to each.'
        )
    if not methods:
        yield "", {}
    for method in methods:
        own = dict(method)
        yield own.pop("name"), own


def _cell(method: str, settings: Settings, axes: Settings, output: Path) -> Cell:
    folders = {"cache-folder": str(output / "cache")}
    given = with_absolute_file({**folders, **settings, **axes})
    try:
        checked = ExperimentSettings.from_run_config(given)
    except ConfigurationError as error:
        where = ", ".join(f"{k} = {v!r}" for k, v in axes.items())
        raise ConfigurationError(
            f"The cell {method or 'without method'} ({where}): {error}"
        ) from None
    meaning = _meaning(checked.to_run_config())
    digest = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()
    words = [method, *(f"{k}={str(v)[-_LONGEST_VALUE:]}" for k, v in axes.items())]
    readable = "--".join(_file_name(word) for word in words if word)
    name = f"{readable}--{digest[:8]}".removeprefix("--")
    folder = output / "cells" / name
    return Cell(method, axes, checked.model_copy(update={"output_folder": str(folder)}))


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.=]+", "-", text).strip("-")
