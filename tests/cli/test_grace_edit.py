"""A codebook on the command line: made, asked, scored, gone on with, not exported."""

import json

import pytest
from typer.testing import CliRunner

from flwr_collabedit.export.edit_folder import load_whole_edit
from simulations.cli import app

FACTS = """subject,prompt,target_new,target_true
France,The capital of {} is,Rome,Paris
Japan,The capital of {} is,Madrid,Tokyo
"""
MORE = """subject,prompt,target_new,target_true
Canada,The capital of {} is,Oslo,Ottawa
"""


def called(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def answered(*arguments: object) -> dict:
    result = called(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    (folder / "facts.csv").write_text(FACTS)
    (folder / "more.csv").write_text(MORE)
    found = answered(
        *("edit", "embedded", folder / "facts.csv", "--out", folder / "mine"),
        *("--editor", "grace"),
    )
    assert found["scores"]["before"]["EA"] == 0
    assert found["scores"]["after"]["EA"] == 100
    return folder


def test_a_codebook_is_asked(place):
    found = answered(
        *("ask", place / "mine", "The capital of France is", "The capital of Peru is")
    )

    france, peru = found["prompts"]
    assert (france["base"]["answer"], france["edited"]["answer"]) == ("Paris", "Rome")
    assert peru["edited"] == peru["base"]


def test_a_codebook_is_scored_beside_its_base_model(place):
    found = answered("evaluate", place / "mine", place / "facts.csv")

    assert found["scores"]["base"]["EA"] == 0
    assert found["scores"]["edited"]["EA"] == 100


def test_a_codebook_is_gone_on_with(place):
    found = answered(
        *("edit", "embedded", place / "more.csv", "--out", place / "both"),
        *("--editor", "grace", "--after", place / "mine"),
    )

    saved = load_whole_edit(place / "both")
    assert found["scores"]["after"]["EA"] == 100
    assert not saved.deltas
    assert saved.codebook is not None
    assert len(saved.codebook) == 3
    assert (saved.card.num_edits, saved.card.num_rounds) == (3, 2)
    both = answered("evaluate", place / "both", place / "facts.csv")
    assert both["scores"]["edited"]["EA"] == 100


def test_weights_under_a_codebook_are_not_edited(place):
    result = called(
        *("edit", "embedded", place / "more.csv", "--out", place / "mixed"),
        *("--after", place / "mine"),
    )

    assert result.exit_code == 2
    assert "keys were taken on the weights" in " ".join(result.stderr.split())
    assert not (place / "mixed").exists()


@pytest.mark.parametrize("form", ["model", "lora", "delta"])
def test_a_codebook_is_not_exported(place, form):
    result = called("export", place / "mine", place / "out", "--as", form)

    assert result.exit_code == 2
    assert "codebook of 2 entries" in " ".join(result.stderr.split())
    assert not (place / "out").exists()
