"""A user's first hour: facts in a file, an edit, questions, scores."""

import json
import shutil

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from flwr_collabedit.export.edit_folder import DELTA_FILE, load_edit
from simulations.cli import app

FACTS = """subject,prompt,target_new,target_true
France,The capital of {} is,Rome,Paris
Japan,The capital of {} is,Madrid,Tokyo
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
    return folder


@pytest.fixture(scope="module")
def moments(place):
    return "--covariance", place / "moments"


@pytest.fixture(scope="module")
def edit(place, moments):
    found = answered(
        *("edit", "embedded", place / "facts.csv", "--out", place / "mine"), *moments
    )
    assert found["edits"] == 3
    assert found["scores"]["before"]["EA"] == 0
    assert found["scores"]["after"]["EA"] == 100
    assert found["residual_norm_after"] < found["residual_norm_before"] / 5
    return place / "mine"


def test_the_new_answer_and_its_probability_are_told(edit):
    found = answered(
        *("ask", edit, "The capital of France is", "The capital of Peru is"),
        *("--answer", "Paris"),
    )

    france, peru = found["prompts"]
    assert france["base"]["answer"] == "Paris"
    assert france["edited"]["answer"] == "Rome"
    assert france["edited"]["probability"] > 0.5
    assert france["edited"]["asked"]["Paris"] < 0.05 < france["base"]["asked"]["Paris"]
    assert peru["edited"]["answer"] == peru["base"]["answer"]


def test_a_reader_gets_a_table(edit):
    result = called("ask", edit, "The capital of Japan is")

    assert result.exit_code == 0
    assert "Madrid" in result.stdout
    assert "Tokyo" in result.stdout
    assert "%" in result.stdout


def test_an_edit_is_scored_on_other_facts_too(edit, place):
    (place / "others.csv").write_text(
        "subject,prompt,target_new\nItaly,The capital of {} is,Rome\n"
    )
    lines = place / "cases.jsonl"

    found = answered("evaluate", edit, place / "others.csv", "--cases-to", lines)

    assert found["scores"]["base"]["EA"] == found["scores"]["edited"]["EA"] == 100
    assert json.loads(lines.read_text())["score"]["rewrite"]["expected"]["correct"]


def test_a_model_is_scored_without_an_edit(place):
    found = answered("evaluate", "embedded", place / "facts.csv")

    assert list(found["scores"]) == ["model"]
    assert found["scores"]["model"]["EA"] == 0


def test_an_edit_goes_on_from_an_earlier_one(edit, place, moments):
    (place / "more.csv").write_text(
        "subject,prompt,target_new\nKenya,The capital of {} is,Berlin\n"
    )
    found = answered(
        *("edit", "embedded", place / "more.csv", "--out", place / "both"),
        *("--after", edit, "--no-score"),
        *moments,
    )

    _, card = load_edit(place / "both")
    assert (card.num_edits, card.num_rounds) == (4, 2)
    assert "scores" in found
    prompts = answered(
        "ask", place / "both", "The capital of Kenya is", "The capital of France is"
    )["prompts"]
    assert [one["edited"]["answer"] for one in prompts] == ["Berlin", "Rome"]


def test_the_card_tells_no_fact_and_no_path(edit, place):
    text = (edit / DELTA_FILE).read_bytes().decode("latin1")

    for word in ("France", "Rome", "capital", str(place)):
        assert word not in text
    assert load_file(edit / DELTA_FILE)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("edit", "embedded", "nowhere.csv"), "nowhere.csv"),
        (("edit", "no/such-model", "{facts}"), "no/such-model"),
        (("edit", "embedded", "{facts}", "--hyperparameters", "gpt2-xxl"), "gpt2-xl"),
        (("edit", "embedded", "{facts}", "--layer-schedule", "local"), "federations"),
        (("edit", "embedded", "{bad}"), "collabedit data check"),
        (("edit", "no/such-model", "{facts}", "--out", "{facts}/o"), "output folder"),
        (
            ("evaluate", "no/such", "{facts}", "--cases-to", "{facts}/o"),
            "output folder",
        ),
        (("ask", "{facts}", "The capital of France is"), "Expected an edit in"),
        (("ask", ".", "The capital of France is"), "found no delta.safetensors"),
        (("evaluate", "{nothing}", "{facts}"), "nothing"),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_a_mistake_is_told_in_a_sentence_and_writes_nothing(
    place, tmp_path, monkeypatch, arguments, said
):
    monkeypatch.chdir(tmp_path)
    (place / "bad.csv").write_text(
        "subject,prompt,target_new\nFrance,The capital of {} is,Rome\n"
        "France,The capital of {} is,Oslo\n"
    )
    names = {
        "facts": place / "facts.csv",
        "bad": place / "bad.csv",
        "nothing": place / "nothing",
    }

    result = called(*(str(argument).format(**names) for argument in arguments))

    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_model_has_no_second_moments_and_is_told_how_to_get_them(
    place, tmp_path
):
    from pico import pico_language_model

    lm = pico_language_model("gpt2")
    lm.model.save_pretrained(tmp_path / "model")
    lm.tokenizer.save_pretrained(tmp_path / "model")
    settings = tmp_path / "edit.json"
    settings.write_text('{"layers": [0, 1], "v_num_grad_steps": 2}')

    result = called(
        *("edit", tmp_path / "model", place / "facts.csv"),
        *("--hyperparameters", settings, "--covariance", tmp_path / "moments"),
    )

    assert result.exit_code == 2
    assert "collabedit covariance" in result.output


def test_a_damaged_second_moment_is_an_error_and_not_estimated_again(
    edit, place, moments, tmp_path
):
    folder = tmp_path / "moments"
    shutil.copytree(moments[1], folder)
    damaged = sorted(folder.glob("*.safetensors"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-9])

    result = called(
        *("edit", "embedded", place / "facts.csv", "--out", tmp_path / "new"),
        *("--covariance", folder),
    )

    assert result.exit_code == 2, result.output
    assert damaged.name in "".join(result.output.split())
    assert not (tmp_path / "new").exists()


def test_an_edit_in_half_precision_is_asked_in_the_same(place, moments):
    found = answered(
        *("edit", "embedded", place / "facts.csv", "--out", place / "half"),
        *("--dtype", "bfloat16", "--no-score", "--covariance", place / "half-moments"),
    )
    assert found["edits"] == 3

    (prompt,) = answered("ask", place / "half", "The capital of Japan is")["prompts"]

    assert prompt["edited"]["answer"] == "Madrid"
    assert answered("evaluate", place / "half", place / "facts.csv", "--no-base")
