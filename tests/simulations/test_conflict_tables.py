"""Contradicting edits in a run's report and in a comparison."""

from types import SimpleNamespace

from simulations.comparison_conflicts import conflict_figures
from simulations.conflict_tables import conflict_rows


def contests(success, difference):
    sides = {"winners": {"ES": 1.0, "EA": 90.0}, "losers": {"ES": 2.0, "EA": 3.0}}
    return {"success": success, "probability_difference": difference, **sides}


def group(*found):
    runs = [SimpleNamespace(summary={"conflicts": conflicts}) for conflicts in found]
    return SimpleNamespace(runs=runs)


def test_a_run_shows_its_pairs_unresolved_and_resolved():
    rows = conflict_rows(
        {"pairs": 7, "before": contests(40.0, -3.0), "after": contests(95.0, 60.0)}
    )

    assert [row["when"] for row in rows] == ["unresolved", "this run"]
    assert [row["success"] for row in rows] == [40.0, 95.0]
    assert rows[1] == {
        "when": "this run",
        "pairs": "7",
        "success": 95.0,
        "probability_difference": 60.0,
        "winners": 90.0,
        "losers": 3.0,
    }


def test_a_run_without_pairs_or_without_a_reference_shows_no_more():
    assert conflict_rows({}) == []
    (row,) = conflict_rows({"pairs": 7, "after": contests(95.0, 60.0)})
    assert row["when"] == "this run"


def test_a_comparison_averages_over_seeds_and_leaves_out_what_is_unknown():
    one = {"pairs": 6, "before": contests(40.0, 1.0), "after": contests(90.0, 50.0)}
    two = {"pairs": 8, "before": contests(60.0, 3.0), "after": contests(100.0, 60.0)}

    row = conflict_figures(group(one, two))

    assert row["pairs"].startswith("7.0")
    assert row["before success"].startswith("50.0")
    assert row["after probability_difference"].startswith("55.0")
    unresolved = conflict_figures(group({"pairs": 5, "after": contests(50.0, 0.0)}))
    assert unresolved["before success"] is None
    assert conflict_figures(group({})) is None
