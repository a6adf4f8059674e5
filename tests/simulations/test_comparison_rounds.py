"""Figures over rounds: what is left of the first edits, and how norms grow."""

import pytest
from fake_rounds import fake_round, old_round

pytest.importorskip("matplotlib")

from simulations import comparison_rounds
from simulations.comparison import Group
from simulations.comparison_rounds import draw_efficacy, draw_norms
from simulations.finished_runs import FinishedRun

PNG = b"\x89PNG"


def run_of(*rounds, seed=0, before=()):
    summary = {"rounds": [*rounds]}
    lines = [*before, *rounds]
    return FinishedRun(None, "method", {"seed": seed}, summary, lines)


def group(name, *runs):
    return Group(name, {}, {}, runs)


@pytest.fixture
def panels(monkeypatch):
    """Return the panels that were drawn."""
    found = []

    def draw(drawn):
        found.extend(drawn)
        return PNG

    monkeypatch.setattr(comparison_rounds, "draw_lines", draw)
    return found


def lines(panel):
    return {
        series.label: {x: e.mean for x, e in series.points.items()}
        for series in panel.series
    }


THREE = (
    fake_round(1, 100.0),
    fake_round(2, 5.0, 5.0, refused="too much"),
    fake_round(3, 80.0, 0.0, 40.0),
)


def test_the_first_edits_are_followed_over_the_rounds_by_method(panels):
    other = run_of(fake_round(1, 90.0), fake_round(2), fake_round(3, 30.0, 60.0, 60.0))

    drawn = draw_efficacy([group("one", run_of(*THREE)), group("other", other)])

    assert drawn[1] == PNG
    assert [panel.x_label for panel in panels] == ["round", "round"]
    assert lines(panels[0]) == {
        "one": {1: 100.0, 3: 80.0},
        "other": {1: 90.0, 3: 30.0},
    }
    assert lines(panels[1]) == {"one": {1: 100.0, 3: 40.0}, "other": {1: 90.0, 3: 50.0}}


def test_the_unedited_model_is_no_round(panels):
    before = fake_round(0, 1.0, 1.0, 1.0)

    draw_efficacy([group("one", run_of(*THREE, before=[before]))])

    assert list(lines(panels[1])["one"]) == [1, 3]


def test_seeds_are_averaged(panels):
    runs = [
        run_of(fake_round(1, first), fake_round(2, first, 50.0), seed=seed)
        for seed, first in ((0, 60.0), (1, 80.0))
    ]

    draw_efficacy([group("one", *runs)])

    assert lines(panels[0]) == {"one": {1: 70.0, 2: 70.0}}
    assert panels[0].series[0].points[1].count == 2


def test_runs_of_different_length_are_placed_by_the_share_that_is_done(panels):
    short = run_of(fake_round(1, 90.0), fake_round(2, 30.0, 60.0))
    long = run_of(*(fake_round(r, *[50.0] * r) for r in range(1, 5)))

    draw_efficacy([group("short", short), group("long", long)])

    assert panels[0].x_label == "rounds done, %"
    assert lines(panels[0]) == {
        "short": {50.0: 90.0, 100.0: 30.0},
        "long": dict.fromkeys((25.0, 50.0, 75.0, 100.0), 50.0),
    }


@pytest.mark.parametrize(
    "rounds", [[fake_round(1, 90.0)], [old_round(1), old_round(2)]], ids=["one", "old"]
)
def test_runs_of_one_round_and_old_runs_have_no_such_figure(rounds):
    assert draw_efficacy([group("one", run_of(*rounds))]) is None


def norms(number, now, base=None, **changes):
    bases = {} if base is None else {"l1/h.3.w": base}
    return fake_round(
        number, weight_norms={"l1/h.3.w": now}, base_norms=bases, **changes
    )


def test_norms_are_multiples_of_the_unedited_models(panels):
    undone = norms(2, 99.0, 10.0, refused="too much")
    rounds = [norms(1, 11.0, 10.0), undone, norms(3, 12.0, 10.0)]

    draw_norms([group("one", run_of(*rounds))])

    assert lines(panels[0]) == {"one": {1: 1.1, 3: 1.2}}
    assert panels[0].title == "layer 3"


def test_norms_of_old_runs_are_multiples_of_the_first_one_recorded(panels):
    rounds = [norms(1, 11.0), norms(2, 12.0)]

    draw_norms([group("one", run_of(*rounds, before=[norms(0, 8.0)]))])

    assert lines(panels[0]) == {"one": {0: 1.0, 1: 1.375, 2: 1.5}}
