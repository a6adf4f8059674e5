"""The end of a run: what stays of undone rounds, the heat map, the terminal."""

import builtins
import io
import json
import sys

import pytest
from fake_rounds import fake_round
from rich.console import Console

from flwr_collabedit.strategies import RoundReport
from simulations.notices import notices, notices_in_short
from simulations.report import report_parts, summarize_run, write_report
from simulations.run_folder import RunFolder
from simulations.settings import ExperimentSettings

TWO_ROUNDS = [fake_round(1, 100.0), fake_round(2, 80.0, 90.0)]


def summary(rounds):
    settings = ExperimentSettings(num_rounds=max(len(rounds), 1))
    return {
        "scores": {},
        "rounds": rounds,
        "gap_to_pooled": {},
        "seconds": 1.0,
        "settings": settings.to_run_config(),
    }


def written(folder, rounds):
    write_report(RunFolder(folder), summary(rounds))
    return (folder / "report.md").read_text(encoding="utf-8")


def printed(folder):
    console = Console(file=io.StringIO(), width=300)
    found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    for part in report_parts(folder, found):
        console.print(part)
    return console.file.getvalue()


def report(number, score, *, refused=""):
    own = {"mean": {"own": {"Score": score}}}
    scores = {"Score": score}
    return RoundReport(number, evaluation=scores, personal=own, refused=refused)


def final_scores(*reports):
    found = summarize_run(ExperimentSettings(num_clients=2), [*reports], None, {}, 1.0)
    return found["score_after"], found["scores"]


def test_final_scores_are_those_of_the_last_round_that_was_kept():
    after, scores = final_scores(
        report(0, 1.0), report(1, 90.0), report(2, 20.0, refused="too much")
    )

    assert after == 90.0
    assert scores == {
        "before": {"Score": 1.0},
        "CollabEdit": {"Score": 90.0},
        "mean: own": {"Score": 90.0},
    }


def test_a_run_that_kept_no_round_ends_as_it_began():
    after, _ = final_scores(report(0, 1.0), report(1, 90.0, refused="too much"))

    assert after == 1.0


def test_without_a_first_scoring_a_run_that_kept_no_round_has_no_score():
    settings = ExperimentSettings(num_clients=2, evaluate_before=False)
    undone = report(1, 90.0, refused="too much")

    assert summarize_run(settings, [undone], None, {}, 1.0)["score_after"] is None


def test_the_heat_map_is_drawn_beside_the_report_that_shows_it(tmp_path):
    pytest.importorskip("matplotlib")

    text = written(tmp_path, TWO_ROUNDS)

    assert "](forgetting.png)" in text
    assert (tmp_path / "forgetting.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("*.draft"))


def test_the_heat_map_numbers_rounds_by_their_scorings(tmp_path, monkeypatch):
    heat_map = pytest.importorskip("flwr_collabedit.evaluation.heat_map")
    asked = {}

    def draw(matrix, **options):
        asked.update(options, rows=matrix.rows)
        return b"picture"

    monkeypatch.setattr(heat_map, "draw_heat_map", draw)
    undone = fake_round(2, 1.0, 1.0, refused="too much")
    written(tmp_path, [TWO_ROUNDS[0], undone, fake_round(3, 80.0, 0.0, 90.0)])

    assert asked["ends"] == [1, 3]
    assert asked["rows"] == ((100.0,), (80.0, 90.0))
    assert (tmp_path / "forgetting.png").read_bytes() == b"picture"


def test_one_round_has_no_heat_map_and_none_stays_of_another_run(tmp_path):
    (tmp_path / "forgetting.png").write_bytes(b"old")

    text = written(tmp_path, [fake_round(1, 100.0)])

    assert "forgetting" not in text
    assert not (tmp_path / "forgetting.png").exists()


def test_without_matplotlib_the_report_has_no_heat_map(tmp_path, monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.delitem(sys.modules, "flwr_collabedit.evaluation.heat_map", False)

    text = written(tmp_path, TWO_ROUNDS)

    assert "EA of earlier rounds' edits" in text
    assert "forgetting.png" not in text
    assert json.loads((tmp_path / "summary.json").read_text())["rounds"] == TWO_ROUNDS


def test_the_report_and_the_terminal_tell_of_undone_rounds_and_warnings(tmp_path):
    rounds = [
        fake_round(1, warnings=["early one", "early two"]),
        fake_round(2, warnings=["[last]"], refused="too much"),
        fake_round(3),
    ]

    text, shown = written(tmp_path, rounds), printed(tmp_path)

    assert "- early one\n- early two\n- [last]\n- Round 2 was undone: too much." in text
    assert "Round 2 was undone: too much." in shown
    assert "[last]" in shown
    assert "early" not in shown.replace("earlier", "")
    assert "earlier rounds, in report.md: 2." in shown


def test_a_run_without_notices_says_nothing_of_them(tmp_path):
    text = written(tmp_path, [fake_round(1, 100.0)])

    assert notices([fake_round(1)]) == notices_in_short([fake_round(1)]) == []
    assert "arning" not in text + printed(tmp_path)


def rounds_in_terminal(folder, number):
    written(folder, [fake_round(r) for r in range(1, number + 1)])
    lines = [line.split() for line in printed(folder).splitlines()]
    start = lines.index(["Rounds"]) + 2
    return [line[0] for line in lines[start : lines.index([], start)]]


def test_of_many_rounds_the_terminal_shows_the_first_and_last(tmp_path):
    assert rounds_in_terminal(tmp_path, 12) == [str(r) for r in range(1, 13)]
    assert rounds_in_terminal(tmp_path, 20) == [
        *("1", "2", "3", "4", "(10", "15", "16", "17", "18", "19", "20")
    ]
    assert (tmp_path / "report.md").read_text(encoding="utf-8").count("\n| 1") == 11
