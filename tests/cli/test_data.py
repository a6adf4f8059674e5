"""``collabedit data`` tells all that is wrong at once, and by its exit code."""

import json
from pathlib import Path
from typing import Any

import pytest
from pico import pico_tokenizer
from typer.testing import CliRunner, Result

from flwr_collabedit.cli.data import app
from flwr_collabedit.cli.record_findings import SHOWN
from flwr_collabedit.cli.terminal import ExitCode
from flwr_collabedit.data.formats import FORMATS, KNOWN_SOURCES
from flwr_collabedit.data.loading import load_cases

CSV = """\
subject,prompt,target_new,target_true
France,The capital of {} is,Rome,Paris
Spain,The capital of it is,Rome,Madrid
France,The capital of {} is,Bonn,Paris
Japan,The capital of {} is,Rome,rome
France,The capital of {} is,Rome,Paris
Norway,The capital of {} is,,Oslo
"""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    pico_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    path = tmp_path / "facts.csv"
    path.write_text(CSV)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def problems(found: dict[str, Any]) -> list[tuple[int, int, str, str]]:
    return [
        (p["record"], p["line"], p["severity"], p["kind"]) for p in found["problems"]
    ]


def test_check_finds_everything_in_one_go(facts: Path, tokenizer: str):
    result = run("check", facts, "--tokenizer", tokenizer, "--json")

    found = json.loads(result.stdout)
    assert result.exit_code == ExitCode.FOUND_WRONG
    assert problems(found) == [
        (1, 3, "error", "layout"),
        (2, 4, "error", "contradiction"),
        (3, 5, "warning", "no change"),
        (4, 6, "warning", "duplicate"),
        (4, 6, "error", "contradiction"),
        (5, 7, "error", "layout"),
    ]
    counts = {key: found[key] for key in ("records", "edits", "usable", "unusable")}
    assert counts == {"records": 6, "edits": 4, "usable": 2, "unusable": 4}
    assert found["with_warnings"] == 1
    assert found["format"] == "plain"
    assert found["kinds"]["contradiction"] == 2


def test_check_shows_the_same_to_a_reader(facts: Path, tokenizer: str):
    result = run("check", facts, "--model", tokenizer)

    assert result.exit_code == ExitCode.FOUND_WRONG
    assert "read as 'plain'" in result.stderr
    assert "6 records (plain), 4 edits" in result.stdout
    assert "2 usable, 1 of them with warnings, 4 not." in result.stdout
    for row in ("1       3     layout", "2       4     contradiction"):
        assert row in result.stdout


@pytest.mark.parametrize("kept", [[0, 1], [0, 1, 4]], ids=["good", "warning"])
def test_what_can_all_be_used_ends_with_0(facts: Path, tokenizer: str, kept: list[int]):
    facts.write_text("\n".join(CSV.splitlines()[line] for line in kept))

    result = run("check", facts, "--model", tokenizer, "--json")

    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (found["unusable"], found["with_warnings"]) == (0, len(kept) - 2)


def test_more_problems_than_are_shown_are_counted(tmp_path: Path, tokenizer: str):
    path = tmp_path / "facts.jsonl"
    path.write_text("\n".join(["{}"] + ["[]"] * (SHOWN + 3)))

    result = run("check", path, "--model", tokenizer, "--format", "plain")

    assert "4 more; --json has all" in result.stdout
    assert f"{SHOWN + 4} records" in result.stdout


def test_limit_and_format_are_passed_on(facts: Path, tokenizer: str):
    first = run("check", facts, "--model", tokenizer, "--limit", 1, "--json")
    other = run("check", facts, "--model", tokenizer, "--format", "zsre", "--json")

    assert json.loads(first.stdout)["records"] == 1
    assert first.exit_code == 0
    assert json.loads(other.stdout)["kinds"] == {"layout": 6}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "none.csv"], "expected a file at"),
        (["check", "FACTS", "--format", "plan"], "Known: 'plain'"),
        (["check", "FACTS", "--model", "no/such"], "Expected a tokenizer"),
        (["convert", "FACTS", "out.csv"], "a name in .jsonl"),
        (["convert", "none.csv", f"{__file__}/out.jsonl"], "output folder"),
    ],
    ids=["file", "format", "tokenizer", "name", "folder"],
)
def test_a_mistake_is_told_in_a_sentence(facts: Path, arguments: list[str], said: str):
    result = run(*(str(facts) if a == "FACTS" else a for a in arguments))

    assert result.exit_code == ExitCode.MISTAKE
    assert said in result.stderr


def test_formats_lists_all_of_both():
    shown, as_json = run("formats"), json.loads(run("formats", "--json").stdout)

    assert set(as_json["formats"]) == set(FORMATS)
    assert set(as_json["sources"]) == set(KNOWN_SOURCES)
    assert as_json["sources"]["counterfact"]["source"] == "azhx/counterfact"
    for name in (*FORMATS, *KNOWN_SOURCES):
        assert name in shown.stdout


def test_convert_writes_what_can_be_read(facts: Path, tmp_path: Path):
    out = tmp_path / "new" / "plain.jsonl"

    result = run("convert", facts, out)

    assert result.exit_code == ExitCode.FOUND_WRONG
    assert "4 edits written" in result.stdout
    assert "record 1 (line 3): prompt: expected" in result.stderr
    written = load_cases(out, data_format="")
    assert [case.request.subject for case in written] == [
        *("France", "France", "Japan", "France")
    ]
    rows = CSV.splitlines()
    facts.write_text("\n".join(rows[:2]))
    assert run("convert", facts, out).exit_code == 0
    assert load_cases(out, data_format="") == load_cases(facts, data_format="plain")
