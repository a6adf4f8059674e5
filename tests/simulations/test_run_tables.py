"""A run's own tables: what a method retains of the pooled edit, what a slot wrote."""

import pytest

from simulations.run_tables import legend, run_tables


def slot(number: int, before: float, after: float) -> dict:
    return {
        "server_round": number,
        "num_clients": 2,
        "num_edits": 4,
        "residual_norm_before": 3.0,
        "residual_norm_after": None,
        "upload_bytes": 2048,
        "seconds": {"targets": 1.0},
        "evaluation": {},
        "mediator": {
            "alpha": 0.25,
            "reused": 2,
            "re-edit-square-before": before,
            "re-edit-square-after": after,
        },
    }


@pytest.fixture
def summary():
    return {
        "scores": {
            "before": {"Score": 1.0},
            "FedEdit": {"Score": 90.0, "NA": 99.0, "retention": 50.0},
            "mean: received": {"Score": 45.0},
            "pooled": {"Score": 60.0, "NA": 90.0, "EA": 70.0, "retention": 0.0},
        },
        "rounds": [slot(1, 16.0, 4.0), slot(2, 9.0, 5.0)],
        "gap_to_pooled": {},
    }


def rows(summary, title):
    return {name: rows for name, _, rows in run_tables(summary)}.get(title)


def test_scores_are_given_in_percent_of_the_pooled_ones(summary):
    found = rows(summary, "Percent of the pooled edit's")

    assert found == [
        {"method": "FedEdit", "Score": 150.0, "NA": pytest.approx(110.0)},
        {"method": "mean: received", "Score": 75.0},
    ]


def test_with_a_delta_to_compare_or_nothing_to_compare_with_there_are_no_shares(
    summary,
):
    merged = {**summary, "gap_to_pooled": {"w": 1e-7}}
    alone = {n: row for n, row in summary["scores"].items() if n != "pooled"}

    assert rows(merged, "Percent of the pooled edit's") is None
    assert rows({**summary, "scores": alone}, "Percent of the pooled edit's") is None


def test_what_re_edits_left_unwritten_is_a_share_of_the_norm(summary):
    found = rows(summary, "Mediator vectors and gradient steps")

    # sqrt(4 / 16), sqrt(5 / 9), sqrt(9 / 25)
    assert [(row["slot"], row["left"]) for row in found] == [
        *(("1", "50"), ("2", "75")),
        ("all", "60"),
    ]


def test_a_slot_without_a_re_edit_has_left_nothing_to_say(summary):
    summary["rounds"] = [slot(1, 0.0, 0.0)]

    found = rows(summary, "Mediator vectors and gradient steps")

    assert [row["left"] for row in found] == ["", ""]


def test_the_slots_columns_are_explained_where_there_are_slots(summary):
    assert "saved:" in legend(summary)
    for report in summary["rounds"]:
        report["mediator"] = {}
    assert "saved:" not in legend(summary)


def test_an_undone_round_is_marked(summary):
    summary["rounds"][1]["refused"] = "too much"

    assert [row["round"] for row in rows(summary, "Rounds")] == ["1", "2 undone"]


@pytest.mark.parametrize(
    ("presence", "shown"), [("answer", ["present", "left-out"]), ("", ["left-out"])]
)
def test_present_edits_are_shown_where_they_are_looked_for(summary, presence, shown):
    summary["settings"] = {"presence": presence}
    summary["rounds"][0]["declared"] = {"present": 0, "left-out": 1}

    [columns] = [c for t, c, _ in run_tables(summary) if t == "Declarations"]

    assert [column.key for column in columns[1:]] == shown


def test_the_tables_over_rounds_are_explained_where_there_are_any(summary):
    assert "Perplexity" not in legend(summary)
    summary["rounds"][0]["health"] = {"perplexity": 2.5}

    assert "Perplexity" in legend(summary)


def test_free_text_has_a_table_where_there_is_some(summary):
    title = "Free text"
    assert rows(summary, title) is None
    assert "ENT" not in legend(summary)

    summary["scores"]["pooled"] |= {"fluency": 480.0, "consistency": 12.0}

    found = rows(summary, title)
    assert found[-1]["method"] == "pooled"
    assert (found[-1]["fluency"], found[-1]["consistency"]) == (480.0, 12.0)
    assert "ENT" in legend(summary)
