"""The heat map shows the matrix's numbers where they belong."""

import math

import pytest

from flwr_collabedit.evaluation.forgetting import EfficacyMatrix

pytest.importorskip("matplotlib")

from flwr_collabedit.evaluation.heat_map import _figure, draw_heat_map

MATRIX = EfficacyMatrix.of([[90], [None, 80], [70, 60, 100]])


def test_it_is_a_png():
    assert draw_heat_map(MATRIX, title="a").startswith(b"\x89PNG\r\n\x1a\n")


def test_rows_are_rounds_and_nothing_is_past_the_diagonal():
    axes = _figure(MATRIX, "a", "b").axes[0]
    (image,) = axes.images
    shown = image.get_array().filled(math.nan).tolist()

    known = [[value for value in row if not math.isnan(value)] for row in shown]
    assert known == [[90], [80], [70, 60, 100]]
    assert shown[1][1] == 80
    assert image.get_clim() == (0, 100)
    assert axes.yaxis_inverted()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("edits of round", "after round")


def test_numbers_are_written_in_where_there_is_room():
    axes = _figure(MATRIX, "a", "b").axes[0]
    written = {text.get_position(): text.get_text() for text in axes.texts}

    assert written == {
        (0, 0): "90",
        (1, 1): "80",
        (0, 2): "70",
        (1, 2): "60",
        (2, 2): "100",
    }
    many = EfficacyMatrix.of([[50] * (r + 1) for r in range(13)])
    assert not _figure(many, "a", "b").axes[0].texts


def test_rounds_are_counted_from_one():
    axes = _figure(MATRIX, "a", "b").axes[0]

    assert axes.xaxis.get_major_formatter()(0, 0) == "1"


def test_a_round_may_stand_for_several():
    axes = _figure(MATRIX, "a", "b", ends=[25, 50, 75]).axes[0]
    label = axes.yaxis.get_major_formatter()

    assert [label(place, 0) for place in (-1.0, 0.0, 1.0, 2.0, 3.0)] == [
        *("", "25", "50", "75", "")
    ]
    assert "up to round" in axes.get_xlabel()
