"""An interrupted estimate goes on to the bits of an uninterrupted one."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pico import pico_language_model

from flwr_collabedit.algebra.second_moment import SecondMoment
from flwr_collabedit.editors import resumable_reading
from flwr_collabedit.editors.covariance import Estimate, estimate
from flwr_collabedit.editors.key_sums import KeySums
from flwr_collabedit.editors.second_moment_source import second_moment_sources
from flwr_collabedit.errors import SecondMomentError
from flwr_collabedit.models.language_model import LanguageModel

SENTENCE = "The capital of France is Paris and that of Italy is Rome , I think ."
WORDS = SENTENCE.split()
TEXTS = [" ".join(WORDS[i % 9 : i % 9 + 2 + i % 5]) for i in range(23)]
LAYERS = (0, 2)
ROWS = 4


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return pico_language_model("gpt2")


def run(lm: LanguageModel, texts, folder, *, every=3600.0, progress=None, **goal):
    goal = goal or {"num_samples": len(TEXTS)}
    sources = second_moment_sources(lm, LAYERS, corpus_name="words", **goal)
    return estimate(
        lm,
        sources,
        texts,
        folder=folder,
        rows_per_batch=ROWS,
        progress=progress,
        save_every_s=every,
    )


def interrupted(after: int) -> Iterator[str]:
    yield from TEXTS[:after]
    raise KeyboardInterrupt


def assert_same(found: dict[int, Estimate], expected: dict[int, Estimate]) -> None:
    assert list(found) == list(expected)
    for layer, one in found.items():
        assert one.card == expected[layer].card
        assert torch.equal(one.matrix, expected[layer].matrix)


@pytest.mark.parametrize(
    "goal",
    [{"num_samples": 23}, {"multiple": 1.1}, {"multiple": 1.1, "shrink": False}],
    ids=["documents", "small", "small-plain"],
)
@pytest.mark.parametrize("after", [1, 8, 10])
def test_going_on_gives_the_same_bits(lm, tmp_path: Path, goal, after: int):
    expected = run(lm, TEXTS, tmp_path / "whole", **goal)

    with pytest.raises(KeyboardInterrupt):
        run(lm, interrupted(after), tmp_path / "parts", **goal)
    kept = [path.suffix for path in (tmp_path / "parts").glob("*")]
    found = run(lm, TEXTS, tmp_path / "parts", **goal)

    assert kept == [".unfinished"] * (after >= ROWS)
    assert_same(found, expected)
    names = [
        sorted(p.name for p in (tmp_path / f).iterdir()) for f in ("whole", "parts")
    ]
    assert names[0] == names[1]
    for name in names[0]:
        pair = [
            (tmp_path / folder / name).read_bytes() for folder in ("whole", "parts")
        ]
        assert pair[0] == pair[1]


def test_what_was_read_is_not_run_again(lm, tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        run(lm, interrupted(9), tmp_path)
    told: list[tuple[int, int]] = []

    run(lm, TEXTS, tmp_path, progress=lambda done, of: told.append((done, of)))

    assert told == [(n, 23) for n in (8, 12, 16, 20, 23)]


@pytest.fixture
def _writing_at_will(monkeypatch) -> None:
    monkeypatch.setattr(resumable_reading, "_LARGEST_WRITING_SHARE", math.inf)


@pytest.mark.usefixtures("_writing_at_will")
def test_sums_are_written_now_and_then_too(lm, tmp_path: Path):
    def killed() -> Iterator[str]:
        yield from TEXTS[:12]
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        run(lm, killed(), tmp_path, every=0.0)
    (path,) = tmp_path.iterdir()

    sums = KeySums.load(path, LAYERS, torch.device("cpu"))

    assert sums.num_documents == 12
    assert_same(run(lm, TEXTS, tmp_path), run(lm, TEXTS, None))


@pytest.mark.usefixtures("_writing_at_will")
def test_an_interrupt_between_two_layers_sums_keeps_the_last_whole_ones(
    lm, tmp_path: Path, monkeypatch
):
    add, calls = SecondMoment.add, []

    def add_or_stop(self: SecondMoment, keys: torch.Tensor) -> None:
        calls.append(1)
        if len(calls) == 6:  # the third batch's second layer
            raise KeyboardInterrupt
        add(self, keys)

    monkeypatch.setattr(SecondMoment, "add", add_or_stop)
    with pytest.raises(KeyboardInterrupt):
        run(lm, TEXTS, tmp_path, every=0.0)
    monkeypatch.undo()

    (path,) = tmp_path.iterdir()
    assert KeySums.load(path, LAYERS, torch.device("cpu")).num_documents == 8
    assert_same(run(lm, TEXTS, tmp_path), run(lm, TEXTS, None))


def test_writing_costs_a_twentieth_of_the_time_at_most(lm, tmp_path: Path, monkeypatch):
    now = [0.0]
    save = KeySums.save

    def slow(self: KeySums, path: Path) -> None:
        now[0] += 10.0
        save(self, path)

    def seconds_each() -> Iterator[str]:
        for text in TEXTS * 20:
            now[0] += 1.0
            yield text

    monkeypatch.setattr(resumable_reading.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(KeySums, "save", slow)

    run(lm, seconds_each(), tmp_path, every=1.0, num_samples=460)

    # After the first batch's 4 s, and then after every 200 s of reading.
    assert now[0] - 460 == 10.0 * 3


def test_a_smaller_goal_than_what_was_read_begins_anew(lm, tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        run(lm, interrupted(9), tmp_path)

    found = run(lm, TEXTS, tmp_path, num_samples=5)

    assert_same(found, run(lm, TEXTS, None, num_samples=5))


def test_another_text_does_not_go_on_from_these_sums(lm, tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        run(lm, interrupted(9), tmp_path)
    sources = second_moment_sources(lm, LAYERS, corpus_name="other", num_samples=9)

    found = estimate(lm, sources, TEXTS[9:18], folder=tmp_path, rows_per_batch=ROWS)

    expected = run(lm, TEXTS[9:18], None, num_samples=9)
    assert torch.equal(found[0].matrix, expected[0].matrix)


def test_a_damaged_unfinished_file_is_refused(lm, tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        run(lm, interrupted(9), tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:50])

    with pytest.raises(SecondMomentError, match=f"{path.name}.*Delete the file"):
        run(lm, TEXTS, tmp_path)


@pytest.mark.parametrize("missing", [0, 1])  # tokens of the ninth document
@pytest.mark.parametrize("rows", [1, 3, 50])
def test_a_small_sample_ends_with_the_document_that_reaches_it(
    lm, rows: int, missing: int
):
    counts = [len(lm.tokenizer(text)["input_ids"]) for text in TEXTS]
    goal = sum(counts[:9]) - missing
    d_key = 64
    sources = second_moment_sources(
        lm, LAYERS, corpus_name="words", multiple=goal / d_key
    )

    found = estimate(lm, sources, TEXTS, rows_per_batch=rows)[0]

    assert (found.card.num_documents, found.card.num_tokens) == (9, sum(counts[:9]))
    plain = run(lm, TEXTS, None, num_samples=9)[0]
    assert plain.card.shrinkage == 0.0
    assert 0 < found.card.shrinkage < 1
    mean = plain.matrix.diagonal().mean() * torch.eye(d_key, dtype=torch.float64)
    expected = torch.lerp(plain.matrix, mean, found.card.shrinkage)
    torch.testing.assert_close(found.matrix, expected)


def test_too_few_tokens_are_told_as_tokens(lm, tmp_path: Path):
    with pytest.raises(
        SecondMomentError, match=r"Expected 6400 tokens, found only .* 23"
    ):
        run(lm, TEXTS, tmp_path, multiple=100)
