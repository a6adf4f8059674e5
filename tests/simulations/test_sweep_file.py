"""Sweep files: the product of methods and axes, and bad ones refused before work."""

from pathlib import Path

import pytest

from flwr_collabedit.errors import ConfigurationError
from simulations.sweep_file import read_sweep, varying_settings

STUDIES = sorted(
    (Path(__file__).resolve().parents[2] / "simulations" / "sweeps").glob("*.toml")
)

GOOD = """
[fixed]
num-clients = 3
layer-schedule = "synchronous"
[axes]
num-edits = [10, 20]
seed = [0, 1]
[[methods]]
name = "CollabEdit"
[[methods]]
name = "CollabEdit, frozen"
layer-schedule = "frozen"
"""


@pytest.fixture
def cells_of(tmp_path):
    def read(text):
        (tmp_path / "sweep.toml").write_text(text, encoding="utf-8")
        return read_sweep(tmp_path / "sweep.toml", tmp_path / "out")

    return read


def test_cells_are_the_product_with_methods_outermost(cells_of):
    cells = cells_of(GOOD)

    found = [(c.method, c.settings.num_edits, c.settings.seed) for c in cells]
    assert found[:3] == [
        ("CollabEdit", 10, 0),
        ("CollabEdit", 10, 1),
        ("CollabEdit", 20, 0),
    ]
    assert found[4] == ("CollabEdit, frozen", 10, 0)
    assert len(found) == len(set(found)) == 8


def test_a_methods_setting_replaces_the_fixed_one(cells_of):
    schedules = {c.method: c.settings.layer_schedule for c in cells_of(GOOD)}

    assert schedules == {"CollabEdit": "synchronous", "CollabEdit, frozen": "frozen"}


def test_cells_share_a_cache_and_have_readable_folders_of_their_own(cells_of, tmp_path):
    cells = cells_of(GOOD)

    assert {c.settings.cache_folder for c in cells} == {str(tmp_path / "out" / "cache")}
    assert len({c.folder for c in cells}) == 8
    assert cells[5].name.startswith("CollabEdit-frozen--num-edits=10--seed=1--")
    assert cells[5].folder.parent == tmp_path / "out" / "cells"


def test_a_cells_name_depends_on_its_settings_not_on_the_place(cells_of, tmp_path):
    first = cells_of(GOOD)
    moved = read_sweep(tmp_path / "sweep.toml", tmp_path / "elsewhere")
    changed = cells_of(GOOD.replace("num-clients = 3", "num-clients = 4"))

    assert [c.name for c in moved] == [c.name for c in first]
    assert not {c.name for c in changed} & {c.name for c in first}


def test_varying_settings_are_those_of_axes_and_methods(cells_of):
    assert varying_settings(cells_of(GOOD)) == ["num-edits", "layer-schedule", "seed"]


def test_reading_writes_nothing(cells_of, tmp_path):
    cells_of(GOOD)

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[fixd]\nseed = 1", "Unknown table 'fixd'.*'fixed'"),
        ("[fixed]\nnum-client = 1", "Unknown setting 'num-client'.*'num-clients'"),
        ("[axes]\nsed = [1]", "Unknown setting 'sed'.*'seed'"),
        ("[fixed]\noutput-folder = '/x'", "Unknown setting 'output-folder'"),
        ("[[methods]]\nname = 'a'\nswep = 2", "Unknown setting 'swep'"),
        ("[axes]\nseed = []", "at least one value for the axis 'seed'"),
        ("[axes]\nseed = 3", "at least one value for the axis 'seed'"),
        ("[axes]\nseed = [1, 1]", "different values on the axis 'seed'"),
        ("[axes]\nseed = [0, 'x']", r"The cell .*seed = 'x'.*valid integer"),
        ("[axes]\nnum-clients = [4, 0]", "num-clients = 0"),
        (
            "[fixed]\nseed = 1\n[axes]\nseed = [1]",
            "'seed' is an axis and set by .fixed",
        ),
        ("[axes]\nseed=[1]\n[[methods]]\nname='a'\nseed=1", "set by a too"),
        ("[[methods]]\nseed = 1", "a name of its own"),
        ("[[methods]]\nname = 'a'\n[[methods]]\nname = 'a'", "a name of its own"),
        ("axes = 3", r"\[axes\] tables"),
        ("axes", "sweep file in TOML"),
    ],
)
def test_a_wrong_file_is_refused_and_says_where(cells_of, text, message):
    with pytest.raises(ConfigurationError, match=message):
        cells_of(text)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="Expected a sweep file"):
        read_sweep(tmp_path / "none.toml", tmp_path)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_shipped_studies_are_valid_and_have_seeds(path, tmp_path):
    cells = read_sweep(path, tmp_path)

    assert {cell.settings.seed for cell in cells} == {0, 1, 2}
    assert all(cell.method for cell in cells)
    assert len({cell.name for cell in cells}) == len(cells)
