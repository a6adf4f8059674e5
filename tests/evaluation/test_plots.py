"""Plots: one style, and colours that belong to labels."""

import builtins
import importlib
import sys

import pytest

from flwr_collabedit.evaluation.intervals import Estimate

pytest.importorskip("matplotlib")

from flwr_collabedit.evaluation import plots

PNG = b"\x89PNG\r\n\x1a\n"


def line(label, *means, reference_for=""):
    points = {100 * (i + 1): Estimate(mean, 2.0, 3) for i, mean in enumerate(means)}
    return plots.Series(label, points, reference_for)


def test_a_label_has_the_same_colour_in_every_panel_and_its_reference_shares_it():
    panels = [
        plots.Panel("a", "x", "y", [line("one", 1), line("two", 2)]),
        plots.Panel(
            "b", "x", "y", [line("two", 2), line("pooled", 3, reference_for="one")]
        ),
    ]

    styles = plots._styles(panels)

    assert list(styles) == ["one", "two"]
    assert styles["one"] != styles["two"]


def test_lines_are_drawn_as_png():
    panel = plots.Panel("a", "edits", "Score, %", [line("one", 90, 80)], percent=True)

    assert plots.draw_lines([panel]).startswith(PNG)


def test_bars_are_drawn_as_png_also_where_a_series_lacks_a_group():
    both = plots.Series(
        "one", {"ES": Estimate(90, 1.0, 3), "PS": Estimate(80, None, 1)}
    )
    only = plots.Series("two", {"PS": Estimate(50, 1.0, 3)})

    assert plots.draw_bars([plots.Panel("a", "", "%", [both, only])]).startswith(PNG)


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.delitem(sys.modules, plots.__name__)
    with pytest.raises(ImportError, match=r"flwr-collabedit\[report\]"):
        importlib.import_module(plots.__name__)
