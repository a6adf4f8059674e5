"""An edit finds the second moments that fit its model, and is told how to make them."""

from pathlib import Path

import pytest
import torch
from pico import pico_language_model

from flwr_collabedit.editors.covariance import estimate
from flwr_collabedit.editors.second_moment_file import file_sha256
from flwr_collabedit.editors.second_moment_folder import (
    default_folder,
    find_second_moments,
)
from flwr_collabedit.editors.second_moment_source import second_moment_sources
from flwr_collabedit.errors import SecondMomentError
from flwr_collabedit.models.language_model import LanguageModel

TEXTS = [
    "The capital of France is Paris",
    "I was in Rome",
    "The old town is Paris.",
] * 9


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return pico_language_model("gpt2")


def make(lm: LanguageModel, folder: Path, layers=(0, 1), **options):
    options = options or {"num_samples": 3}
    sources = second_moment_sources(lm, layers, corpus_name="towns", **options)
    return estimate(lm, sources, TEXTS, folder=folder)


def test_the_folder_is_in_the_users_cache(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "flwr-collabedit" / "second_moments"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_folder().parts[-4:-2] == ("home", ".cache")


def test_without_a_folder_the_users_cache_is_searched(lm, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = make(lm, default_folder())

    found = find_second_moments(lm, (0, 1))

    assert list(found) == [lm.weight_name(0), lm.weight_name(1)]
    assert torch.equal(found[lm.weight_name(1)], made[1].matrix)


def test_the_most_tokens_are_taken_a_layer_and_told(lm, tmp_path: Path):
    make(lm, tmp_path, multiple=0.5)
    full = make(lm, tmp_path, layers=(1,), num_samples=20)
    make(lm, tmp_path, num_samples=2)
    small = make(lm, tmp_path, layers=(0,), multiple=1)
    told: list[str] = []

    found = find_second_moments(lm, (0, 1), tmp_path, note=told.append)

    assert torch.equal(found[lm.weight_name(0)], small[0].matrix)
    assert torch.equal(found[lm.weight_name(1)], full[1].matrix)
    assert "layer 0" in told[0]
    assert "small sample" in told[0]
    assert f"shrunk by {small[0].card.shrinkage:.2g}" in told[0]
    assert "layer 1" in told[1]
    assert "small" not in told[1]


def test_of_as_many_tokens_the_full_sample_is_taken(lm, tmp_path: Path):
    full = make(lm, tmp_path, layers=(0,), num_samples=len(TEXTS))[0]
    share = full.card.num_tokens / full.card.source.d_key
    small = make(lm, tmp_path, layers=(0,), multiple=share)[0]

    found = find_second_moments(lm, (0,), tmp_path)[lm.weight_name(0)]

    assert small.card.num_tokens == full.card.num_tokens
    assert not torch.equal(small.matrix, full.matrix)
    assert torch.equal(found, full.matrix)


def test_another_name_of_the_same_model_fits_and_is_told(lm, tmp_path: Path):
    make(lm, tmp_path)
    copy = LanguageModel("/data/copy", lm.model, lm.tokenizer, lm.architecture)
    told: list[str] = []

    find_second_moments(copy, (0,), tmp_path, note=told.append)

    assert "under the name 'pico-gpt2'" in told[0]


def test_files_of_other_weights_are_named_and_the_command_is_told(lm, tmp_path: Path):
    make(pico_language_model("gpt2", seed=1), tmp_path, num_samples=3, revision="abc")

    with pytest.raises(SecondMomentError) as error:
        find_second_moments(lm, (0, 1), tmp_path)

    text = str(error.value)
    assert "layers 0, 1 of 'pico-gpt2'" in text
    assert "only those of 'pico-gpt2@abc', with another fingerprint" in text
    assert "collabedit covariance pico-gpt2 --layers 0,1 --corpus" in text
    assert text.endswith("--small 10")


def test_only_the_layers_that_lack_one_are_asked_for(lm, tmp_path: Path):
    make(lm, tmp_path, layers=(1,))

    with pytest.raises(SecondMomentError, match=r"layers 0, 2 of .* found none\."):
        find_second_moments(lm, (0, 1, 2), tmp_path)


def test_what_is_no_second_moment_is_passed_over_and_told(lm, tmp_path: Path):
    make(lm, tmp_path)
    (tmp_path / "delta.safetensors").write_bytes(b"of another kind")
    told: list[str] = []

    found = find_second_moments(lm, (0,), tmp_path, note=told.append)

    assert list(found) == [lm.weight_name(0)]
    assert "delta.safetensors" in told[0]


def test_equal_estimates_have_equal_bytes(lm, tmp_path: Path):
    pair = [make(lm, tmp_path / name)[0].path for name in ("one", "two")]

    assert len({file_sha256(path) for path in pair}) == 1


def test_small_full_shrunk_and_revisions_have_files_of_their_own(lm, tmp_path: Path):
    for options in (
        {"num_samples": 3},
        {"num_samples": 3, "shrink": True},
        {"num_samples": 3, "revision": "abc"},
        {"multiple": 0.5},
        {"multiple": 0.25},
        {"multiple": 0.5, "shrink": False},
    ):
        make(lm, tmp_path, layers=(0,), **options)

    assert len(list(tmp_path.iterdir())) == 6


def test_a_small_sample_is_refused_where_a_full_one_is_expected(lm, tmp_path: Path):
    small = make(lm, tmp_path, layers=(0,), multiple=0.5)[0]
    (full,) = second_moment_sources(
        lm, (0,), corpus_name="towns", num_samples=3
    ).values()
    small.path.rename(tmp_path / full.file_name)

    with pytest.raises(SecondMomentError, match=r"num_samples 3, found 0"):
        estimate(lm, {0: full}, TEXTS, folder=tmp_path)
