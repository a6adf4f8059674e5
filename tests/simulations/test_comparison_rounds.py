"""Figures over rounds: what is left of edits, how norms grow, what damage is done."""

import pytest
from fake_rounds import fake_round, old_round

pytest.importorskip("matplotlib")

from simulations import comparison_rounds
from simulations.comparison import Group
from simulations.comparison_rounds import (
    draw_damage,
    draw_efficacy,
    draw_norms,
    draw_scores,
)
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
    # One of the runs has undone a round: they have not the same edits after round 3.
    assert [panel.x_label for panel in panels] == ["round", "round"]
    assert lines(panels[0]) == {
        "one": {1: 100.0, 3: 80.0},
        "other": {1: 90.0, 3: 30.0},
    }
    assert lines(panels[1]) == {"one": {1: 100.0, 3: 40.0}, "other": {1: 90.0, 3: 50.0}}


def test_points_are_placed_by_edits_where_runs_have_the_same_ones(panels):
    few = run_of(fake_round(1, 90.0, num_edits=8), fake_round(2, 30.0, num_edits=8))
    many = run_of(*(fake_round(r, *[50.0] * r, num_edits=4) for r in range(1, 5)))

    draw_efficacy([group("few", few), group("many", many)])

    assert panels[0].x_label == "edits"
    assert list(lines(panels[0])["few"]) == [8, 16]
    assert list(lines(panels[0])["many"]) == [4, 8, 12, 16]


def test_a_round_without_edits_has_no_place_among_them(panels):
    rounds = fake_round(1, 90.0), fake_round(2, 80.0, num_edits=0)

    draw_efficacy([group("one", run_of(*rounds))])

    assert panels[0].x_label == "round"
    assert lines(panels[0]) == {"one": {1: 90.0, 2: 80.0}}


def test_the_unedited_model_is_no_round(panels):
    before = fake_round(0, 1.0, 1.0, 1.0)

    draw_efficacy([group("one", run_of(*THREE, before=[before]))])

    assert list(lines(panels[1])["one"]) == [2, 4]


def test_seeds_are_averaged(panels):
    runs = [
        run_of(fake_round(1, first), fake_round(2, first, 50.0), seed=seed)
        for seed, first in ((0, 60.0), (1, 80.0))
    ]

    draw_efficacy([group("one", *runs)])

    assert lines(panels[0]) == {"one": {2: 70.0, 4: 70.0}}
    assert panels[0].series[0].points[2].count == 2


def test_runs_of_different_length_are_placed_by_the_share_that_is_done(panels):
    short = run_of(fake_round(1, 90.0), fake_round(2, 30.0, 60.0))
    last = fake_round(4, *[50.0] * 4, num_edits=0)
    long = run_of(*(fake_round(r, *[50.0] * r) for r in range(1, 4)), last)

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

    assert lines(panels[0]) == {"one": {2: 1.1, 4: 1.2}}
    assert panels[0].title == "layer 3"


def test_norms_of_old_runs_are_multiples_of_the_first_one_recorded(panels):
    rounds = [norms(1, 11.0), norms(2, 12.0)]

    draw_norms([group("one", run_of(*rounds, before=[norms(0, 8.0)]))])

    assert lines(panels[0]) == {"one": {0: 1.0, 2: 1.375, 4: 1.5}}


def scored(number, accuracy, **changes):
    scores = {"EA": 99.0, "PA": accuracy, "NA": accuracy + 1}
    return fake_round(number, evaluation=scores, **changes)


def test_paraphrases_and_neighborhood_are_drawn_by_edits(panels):
    one = run_of(scored(1, 80.0), fake_round(2), scored(3, 60.0))

    drawn = draw_scores([group("one", one)])

    assert drawn[1] == PNG
    assert [panel.y_label for panel in panels] == ["PA, %", "NA, %"]
    assert [lines(panel) for panel in panels] == [
        {"one": {2: 80.0, 6: 60.0}},
        {"one": {2: 81.0, 6: 61.0}},
    ]
    assert all(panel.percent for panel in panels)


def test_damage_is_drawn_in_what_has_been_measured(panels):
    def damaged(number, perplexity):
        health = {"perplexity": perplexity, "base-perplexity": 2.0}
        return scored(number, 80.0, health=health)

    draw_damage([group("one", run_of(damaged(1, 2.5), damaged(2, 3.0)))])

    assert [panel.title for panel in panels] == ["Held-out text"]
    assert lines(panels[0]) == {"one": {2: 1.25, 4: 1.5}}


@pytest.mark.parametrize("draw", [draw_scores, draw_damage])
def test_runs_that_were_scored_once_have_no_figure_of_scores(draw):
    once = scored(2, 80.0, health={"kl-to-base": 0.1})

    assert draw([group("one", run_of(fake_round(1), once))]) is None
