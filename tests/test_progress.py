"""Progress shows in the log when work is long, and not otherwise."""

import logging

import pytest

from flwr_collabedit import progress as module
from flwr_collabedit.progress import ProgressLog


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def lines(monkeypatch):
    found: list[str] = []

    def log(level, text, *values):
        assert level == logging.INFO
        found.append(text % values)

    monkeypatch.setattr(module, "log", log)
    return found


def test_a_line_every_few_seconds_tells_what_is_left(clock, lines):
    progress = ProgressLog("targets", 8)
    for done, seconds in [(1, 4.0), (2, 12.0), (3, 13.0), (4, 30.0)]:
        clock[0] = seconds
        progress(done)

    assert lines == [
        "targets: 2 of 8, about 36 s left",
        "targets: 4 of 8, about 30 s left",
    ]


def test_short_work_logs_nothing(clock, lines):
    progress = ProgressLog("letters", 3)
    for done in (1, 2, 3):
        progress(done)

    assert lines == []


def test_a_total_found_later_replaces_the_expected_one(clock, lines):
    progress = ProgressLog("prompts", 1)
    clock[0] = 20.0
    progress(10, 40)

    assert lines == ["prompts: 10 of 40, about 60 s left"]
