"""What the harness measures, against the same written out plainly."""

import json
from collections.abc import Iterator
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from pico import pico_language_model

pytest.importorskip("lm_eval", reason="needs the extra 'downstream'")

from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.evaluation.downstream import EXAMPLE_TASKS, evaluate_downstream
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.loading import load_language_model
from flwr_collabedit.models.weights import applied_deltas

EXAMPLES = ("world_choice", "world_text")
# Random models prefer short answers: most are of one token, the first ones of more.
QUESTIONS = [
    {"question": "The capital of France is", "choices": ["Paris", "Rome", "a town"]},
    {"question": "What does he play? He plays", "choices": ["is", "of", "in"]},
    {"question": "Norway is", "choices": ["a", "the", "is"]},
    {"question": "She lives in the city", "choices": ["not", "in", "of"]},
    {"question": "I think that", "choices": ["the", "a", "is"]},
    {"question": "Because Rome", "choices": ["is", "of", "a"]},
]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)


@pytest.fixture
def lm() -> LanguageModel:
    return pico_language_model("gpt2", dtype=torch.float64)


def write_task(folder: Path, name: str, **changes: Any) -> None:
    """Write a task as JSON, which is YAML too, and its questions beside it."""
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "questions.jsonl"}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc"}],
        **changes,
    }
    (folder / f"{name}.yaml").write_text(json.dumps(task), encoding="utf-8")
    lines = [json.dumps({**row, "answer": i % 3}) for i, row in enumerate(QUESTIONS)]
    (folder / "questions.jsonl").write_text("\n".join(lines), encoding="utf-8")


def log_likelihood(lm: LanguageModel, before: list[int], after: list[int]) -> float:
    logits = lm.model(torch.tensor([before + after])).logits[0, len(before) - 1 : -1]
    return float(logits.log_softmax(1).gather(1, torch.tensor([after]).T).sum())


def plain_accuracy(lm: LanguageModel) -> float:
    def score(question: str, choice: str) -> float:
        before = lm.tokenizer(question)["input_ids"]
        whole = lm.tokenizer(f"{question} {choice}")["input_ids"]
        return log_likelihood(lm, before, whole[len(before) :])

    hits = 0
    for index, row in enumerate(QUESTIONS):
        scores = [score(row["question"], choice) for choice in row["choices"]]
        hits += scores.index(max(scores)) == index % 3
    return hits / len(QUESTIONS)


def deltas(lm: LanguageModel, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    name = lm.weight_name(0)
    return {name: torch.randn(32, 64, generator=generator, dtype=torch.float64)}


def rounds(lm: LanguageModel) -> Iterator[dict[str, torch.Tensor]]:
    yield {}
    yield from (deltas(lm, seed) for seed in range(4))


def test_accuracy_is_that_of_the_likeliest_choice(
    lm: LanguageModel, tmp_path: Path
) -> None:
    write_task(tmp_path, "choice")
    found, expected = [], []

    for edit in rounds(lm):
        with applied_deltas(lm, edit):
            found.append(evaluate_downstream(lm, ["choice"], tmp_path))
            expected.append({"choice": {"acc": pytest.approx(plain_accuracy(lm))}})

    assert found == expected
    assert len({task["choice"]["acc"] for task in found}) > 1  # the deltas are seen


@pytest.mark.parametrize("batch_size", [1, 3])
def test_bits_per_byte_are_those_of_the_text(
    lm: LanguageModel, tmp_path: Path, batch_size: int
) -> None:
    write_task(
        tmp_path,
        "text",
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="{{question}}",
        doc_to_choice=None,
        metric_list=[{"metric": "bits_per_byte"}],
    )
    texts = [row["question"] for row in QUESTIONS]
    start = [lm.tokenizer.bos_token_id]
    total = sum(log_likelihood(lm, start, lm.tokenizer(t)["input_ids"]) for t in texts)
    bits = -total / log(2) / sum(len(text.encode()) for text in texts)

    found = evaluate_downstream(lm, ["text"], tmp_path, batch_size=batch_size)

    assert found == {"text": {"bits_per_byte": pytest.approx(bits, rel=1e-6)}}


def test_the_example_tasks_tell_the_trained_model_from_a_broken_one() -> None:
    lm = load_language_model("embedded")
    name = lm.weight_name(0)

    whole = evaluate_downstream(lm, EXAMPLES, EXAMPLE_TASKS)
    with applied_deltas(lm, {name: torch.randn(lm.down_projection(0).weight.T.shape)}):
        broken = evaluate_downstream(lm, EXAMPLES, EXAMPLE_TASKS)

    assert whole["world_choice"]["acc"] > 0.8
    assert broken["world_choice"]["acc"] < 0.6
    bits = [found["world_text"]["bits_per_byte"] for found in (whole, broken)]
    assert bits[0] < 1 < bits[1]


def test_model_tokenizer_and_torchs_generator_stay_as_they_were(
    lm: LanguageModel, tmp_path: Path
) -> None:
    write_task(tmp_path, "choice")
    lm.tokenizer.pad_token = None
    weights = [weight.clone() for weight in lm.model.parameters()]
    state = torch.get_rng_state()

    evaluate_downstream(lm, ["choice"], tmp_path)

    assert lm.tokenizer.pad_token is None
    assert all(map(torch.equal, weights, lm.model.parameters()))
    assert torch.equal(torch.get_rng_state(), state)


def test_questions_are_read_anew_and_leave_no_cache(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", cache)
    write_task(tmp_path, "choice")
    first = evaluate_downstream(lm, ["choice"], tmp_path)
    right = [
        json.dumps({**row, "choices": ["in"] * 3, "answer": 0}) for row in QUESTIONS
    ]
    (tmp_path / "questions.jsonl").write_text("\n".join(right), encoding="utf-8")

    found = evaluate_downstream(lm, ["choice"], tmp_path)

    assert first["choice"]["acc"] < 1
    assert found == {"choice": {"acc": 1.0}}
    assert not cache.exists()


def test_the_examples_before_a_question_are_the_same_ones_every_time(
    lm: LanguageModel, tmp_path: Path
) -> None:
    task = {
        "output_type": "loglikelihood",
        "doc_to_choice": None,
        "doc_to_target": "{{choices[0]}}",
        "metric_list": [{"metric": "perplexity"}],
    }
    write_task(tmp_path, "alone", **task)
    write_task(tmp_path, "after_two", **task, num_fewshot=2, fewshot_split="test")

    found = [
        evaluate_downstream(lm, ["alone", "after_two"], tmp_path) for _ in range(3)
    ]

    assert found[0] == found[1] == found[2]
    assert found[0]["alone"] != found[0]["after_two"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset_path": "sciq"}, r"choice\.yaml.*dataset_path 'sciq'"),
        ({"dataset_kwargs": None}, "data_files None"),
        (
            {"dataset_kwargs": {"data_files": {"test": "hf://datasets/a/b.jsonl"}}},
            "found no .*b.jsonl",
        ),
        ({"metric_list": [{"metric": "rouge"}]}, "'rouge', which would be downl"),
        (
            {"metric_list": [{"metric": "acc", "hf_evaluate": True}]},
            "'acc', which would be downl",
        ),
    ],
)
def test_what_would_be_downloaded_is_refused(
    lm: LanguageModel, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write_task(tmp_path, "choice", **changes)

    with pytest.raises(ConfigurationError, match=message):
        evaluate_downstream(lm, ["choice"], tmp_path)


def test_unknown_tasks_and_settings_are_refused(
    lm: LanguageModel, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"'arc_easy'\. The folder has none"):
        evaluate_downstream(lm, ["arc_easy"], tmp_path)
    with pytest.raises(ConfigurationError, match=r"'world_chois'.*'world_choice'"):
        evaluate_downstream(lm, ["world_chois"], EXAMPLE_TASKS)
    with pytest.raises(ConfigurationError, match="at least one task"):
        evaluate_downstream(lm, [], EXAMPLE_TASKS)
    with pytest.raises(ConfigurationError, match="batch_size >= 1; found 0"):
        evaluate_downstream(lm, EXAMPLES, EXAMPLE_TASKS, batch_size=0)
