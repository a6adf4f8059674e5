"""The picture shows the averages where they belong."""

import pytest
from traces_by_hand import made_averages

pytest.importorskip("matplotlib")

from flwr_collabedit.locating.picture import _figure, draw_trace

AVERAGES = made_averages([0.4, 0.1, 0.0])


def test_it_is_a_png():
    picture = draw_trace(AVERAGES, (0, 1), title="a", window=1)

    assert picture.startswith(b"\x89PNG\r\n\x1a\n")


def test_maps_are_roles_by_layers_with_a_scale_from_zero():
    (state, mlp, *_) = _figure(AVERAGES, (), "a", 3).axes
    (image,) = state.images

    assert image.get_array().tolist() == [[0.8, 0.8, 0.8]]
    assert image.get_clim() == (0, 0.8)
    assert [label.get_text() for label in state.get_yticklabels()] == [
        "last subject token"
    ]
    assert not mlp.axison  # nothing was measured


def test_severed_curves_have_their_values_and_the_chosen_layers_are_shaded():
    axes = _figure(AVERAGES, (0, 1), "a", 1).axes[3]
    lines = {
        container.get_label(): container[0].get_ydata().tolist()
        for container in axes.containers
    }

    assert lines["nothing severed"] == [0.8, 0.8, 0.8]
    assert lines["MLPs severed"] == pytest.approx([0.4, 0.7, 0.8])
    (shade,) = axes.patches
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == (-0.5, 1.5)
    assert not _figure(AVERAGES, (), "a", 1).axes[3].patches
