"""A whole simulation that goes on: withdrawal, conflicts, health, and a resumed run."""

import json
import shutil

import pytest

from flwr_collabedit.errors import CheckpointError
from simulations.engines import Engine
from simulations.launch import run
from simulations.settings import ExperimentSettings

OPTIONS = {
    "num_clients": 2,
    "num_rounds": 3,
    "num_edits": 12,
    "second_moment_samples": 500,
    "context_starters": "The",
    "history": "d4s",
    "layer_schedule": "frozen",
    "withdraw": "client:client-1@3",
    "conflict_share": 0.5,
    "conflict_policy": "majority",
    "health_samples": 4,
    "generation_tokens": 12,
    "reference_texts": "embedded",
    "checkpoints": "all",
}


def settings(folder, **changes):
    return ExperimentSettings(output_folder=str(folder), **{**OPTIONS, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run(settings(folder), Engine.IN_PROCESS)
    return folder


def read(folder):
    return json.loads((folder / "summary.json").read_text())


def numbers_of(folder):
    lines = (folder / "rounds.jsonl").read_text().splitlines()
    return [json.loads(line)["server_round"] for line in lines]


def test_rounds_of_d4s_without_what_was_taken_out_are_one_batch(finished):
    summary = read(finished)

    assert len(summary["gap_to_pooled"]) == 3
    assert max(summary["gap_to_pooled"].values()) < 1e-5
    first, second, third = summary["rounds"]
    assert first["declared"]["conflicts"] > 0
    assert first["declared"]["left-out"] == first["declared"]["conflicts"]
    in_force = first["edits_by_client"]["client-1"]
    in_force += second["edits_by_client"]["client-1"]
    assert third["declared"]["withdrawn"] == in_force > 0


def test_the_summary_has_health_and_the_efficacy_of_every_round(finished):
    rounds = read(finished)["rounds"]

    for report in rounds:
        health = report["health"]
        assert health["base-perplexity"] == rounds[0]["health"]["base-perplexity"] > 1
        assert 0 < health["kl-to-base"] < 1
        assert health["perplexity"] / health["base-perplexity"] < 1.5
        done = report["server_round"]
        expected = {*map(str, range(1, done + 1)), "inactive"}
        assert set(report["efficacy_by_round"]) == expected
        assert report["efficacy_by_round"]["1"]["EA"] >= 50
    inactive = [report["efficacy_by_round"]["inactive"] for report in rounds]
    assert inactive[2]["edits"] > inactive[1]["edits"]
    assert inactive[2]["EA"] <= 50


def test_free_text_of_clients_is_that_of_the_pooled_party(finished):
    scores = read(finished)["scores"]

    for name in ("fluency", "consistency"):
        pooled = scores["pooled"][name]
        assert scores["before"][name] > 0
        assert scores["CollabEdit"][name] == pytest.approx(pooled, rel=0.05)
    assert "## Free text" in (finished / "report.md").read_text()
    lines = (finished / "cases" / "client-1-round-1.jsonl").read_text().splitlines()
    # The fact and its two paraphrases.
    assert len(json.loads(lines[0])["texts"]["texts"]) == 3


def kept(folder, copy, last):
    """Copy a run's folder as it was when the server died in the round after."""
    shutil.copytree(folder, copy)
    for path in (copy / "checkpoints").glob("round-*"):
        if int(path.stem.removeprefix("round-")) > last:
            path.unlink()
    for name in ("summary.json", "delta.safetensors", "report.md"):
        (copy / name).unlink()
    return copy


@pytest.mark.parametrize("last", [1, 2])
def test_a_run_goes_on_from_its_folder(finished, tmp_path, last):
    # The round after was told of, and only half of the one after that was written.
    copy = kept(finished, tmp_path / "copy", last)
    lines = (copy / "rounds.jsonl").read_text().splitlines(keepends=True)
    torn = "".join(lines[: last + 2]) + (lines[-1][:50] if last == 1 else "")
    (copy / "rounds.jsonl").write_text(torn)

    # What is measured of the model may change; here it does not.
    run(settings(copy, resume=True, checkpoints="last"), Engine.IN_PROCESS)

    for name in ("delta.safetensors", "checkpoints/round-00003.safetensors"):
        assert (copy / name).read_bytes() == (finished / name).read_bytes()
    assert numbers_of(copy) == numbers_of(finished) == [0, 1, 2, 3]
    one, other = read(copy), read(finished)
    assert one["scores"] == other["scores"]
    assert one["gap_to_pooled"] == other["gap_to_pooled"]
    for found, expected in zip(one["rounds"], other["rounds"], strict=True):
        for name in ("declared", "evaluation", "efficacy_by_round", "health"):
            assert found[name] == expected[name]


def test_without_resume_a_folder_starts_anew(finished, tmp_path):
    copy = kept(finished, tmp_path / "copy", 2)
    few = settings(copy, num_rounds=1, withdraw="", evaluate_before=False)

    run(few, Engine.IN_PROCESS)

    assert numbers_of(copy) == [1]
    checkpoints = sorted(path.name for path in (copy / "checkpoints").glob("round-*"))
    assert checkpoints == ["round-00001.safetensors"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"history": "none", "withdraw": ""}, "history"),
        ({"form": "dense"}, "form"),
        ({"seed": 1}, "seed = 0, found 1"),
        ({"num_rounds": 4}, "num-rounds"),
        ({"conflict_policy": "last-come"}, "conflict-policy"),
    ],
)
def test_a_run_of_other_settings_does_not_go_on(finished, tmp_path, changes, named):
    copy = kept(finished, tmp_path / "copy", 2)

    with pytest.raises(CheckpointError, match=named):
        run(settings(copy, resume=True, **changes), Engine.IN_PROCESS)

    names = ["round-00001.safetensors", "round-00002.safetensors"]
    found = sorted((copy / "checkpoints").glob("round-*"))
    assert [path.name for path in found] == names
    for name in ("rounds.jsonl", "settings.json", *(f"checkpoints/{n}" for n in names)):
        assert (copy / name).read_bytes() == (finished / name).read_bytes()
