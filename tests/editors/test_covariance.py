from pathlib import Path

import pytest
import torch
from editing import double_model
from pico import pico_language_model

from flwr_collabedit.editors.covariance import estimate_second_moments
from flwr_collabedit.errors import ConfigurationError, SecondMomentError
from flwr_collabedit.models.language_model import LanguageModel

TEXTS = ("The capital of France is Paris", "I was in Rome", "The old town is Paris.")


def estimate(
    lm: LanguageModel, folder: Path | None, **changes: object
) -> dict[str, torch.Tensor]:
    options = {"num_samples": 3, "corpus_name": "towns", "dtype": "float64", **changes}
    return estimate_second_moments(lm, (0, 1), TEXTS, cache_folder=folder, **options)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_second_moment_is_the_mean_of_k_k_transposed_over_all_tokens(family: str):
    lm = double_model(family)
    seen: list[torch.Tensor] = []
    handle = lm.down_projection(1).register_forward_pre_hook(
        lambda _, args: seen.append(args[0][0])
    )
    for text in TEXTS:
        lm.model(torch.tensor([lm.tokenizer(text)["input_ids"]]))
    handle.remove()
    keys = torch.cat(seen)

    found = estimate(lm, None, rows_per_batch=2)[lm.weight_name(1)]

    torch.testing.assert_close(found, keys.T @ keys / len(keys))


def test_long_documents_are_cut():
    lm = double_model("gpt2")
    short = [lm.tokenizer.decode(lm.tokenizer(TEXTS[0])["input_ids"][:3])]

    cut = estimate_second_moments(
        lm, [0], TEXTS[:1], num_samples=1, corpus_name="a", max_length=3
    )
    whole = estimate_second_moments(lm, [0], short, num_samples=1, corpus_name="a")

    torch.testing.assert_close(cut, whole)


def test_a_cached_second_moment_is_read_and_the_text_is_not(tmp_path: Path):
    lm = double_model("gpt2")
    first = estimate(lm, tmp_path)

    again = estimate_second_moments(
        lm,
        (0, 1),
        iter(()),
        num_samples=3,
        corpus_name="towns",
        dtype="float64",
        cache_folder=tmp_path,
    )

    assert all(torch.equal(first[name], again[name]) for name in first)


def test_other_settings_get_other_files(tmp_path: Path):
    lm = double_model("gpt2")

    for changes in ({}, {"num_samples": 2}, {"corpus_name": "b"}, {"max_length": 4}):
        estimate(lm, tmp_path, **changes)

    assert len(list(tmp_path.iterdir())) == 4 * 2  # two layers each


def test_a_file_of_other_weights_is_refused(tmp_path: Path):
    estimate(double_model("gpt2"), tmp_path)
    other = double_model("gpt2", seed=1)

    with pytest.raises(SecondMomentError, match=r"fingerprint '.*', found '.*delete"):
        estimate(other, tmp_path)


def test_a_file_of_another_layer_is_refused(tmp_path: Path):
    lm = double_model("gpt2")
    estimate(lm, tmp_path)
    first, second = sorted(tmp_path.iterdir())
    second.write_bytes(first.read_bytes())

    with pytest.raises(SecondMomentError, match=second.name):
        estimate(lm, tmp_path)


def test_a_damaged_file_is_refused(tmp_path: Path):
    lm = double_model("gpt2")
    estimate(lm, tmp_path)
    path = min(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:100])

    with pytest.raises(SecondMomentError, match=r"cannot be read.*[Dd]elete"):
        estimate(lm, tmp_path)


def test_too_little_text_is_refused_and_what_was_read_serves_a_smaller_call(
    tmp_path: Path,
):
    lm = double_model("gpt2")
    with pytest.raises(SecondMomentError, match="Expected 4 documents, found only 3"):
        estimate(lm, tmp_path, num_samples=4)
    assert not list(tmp_path.glob("*.safetensors"))

    # No model runs: the texts are passed over.
    again = estimate_second_moments(
        lm,
        (0, 1),
        ["?"] * 3,
        num_samples=3,
        corpus_name="towns",
        dtype="float64",
        cache_folder=tmp_path,
    )

    expected = estimate(lm, None)
    assert all(torch.equal(again[name], expected[name]) for name in expected)


def test_documents_and_multiple_exclude_each_other():
    lm = double_model("gpt2")

    for options in ({"num_samples": 0}, {"multiple": 2.0}):
        with pytest.raises(ConfigurationError, match="either a number of documents"):
            estimate(lm, None, **options)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_keys_of_half_precision_models_are_summed_in_float64(dtype: torch.dtype):
    lm = pico_language_model("llama", dtype=dtype)
    seen: list[torch.Tensor] = []
    handle = lm.down_projection(1).register_forward_pre_hook(
        lambda _, args: seen.append(args[0][0])
    )
    for text in TEXTS:
        lm.model(torch.tensor([lm.tokenizer(text)["input_ids"]]))
    handle.remove()
    keys = torch.cat(seen).double()

    found = estimate(lm, None, dtype="float32", rows_per_batch=1)[lm.weight_name(1)]

    assert found.dtype == torch.float64
    torch.testing.assert_close(found, keys.T @ keys / len(keys), rtol=1e-12, atol=0)


def test_a_document_without_a_token_is_passed_over():
    lm = double_model("gpt2")

    found = estimate_second_moments(
        lm,
        [0],
        ["", *TEXTS[:2]],
        num_samples=3,
        corpus_name="a",
        dtype="float64",
        rows_per_batch=1,
    )

    expected = estimate(lm, None, num_samples=2)[lm.weight_name(0)]
    torch.testing.assert_close(found[lm.weight_name(0)], expected)
