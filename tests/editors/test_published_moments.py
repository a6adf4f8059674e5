"""The authors' ``.npz`` statistics become files of ours, or are refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pico import pico_language_model

from flwr_collabedit.editors.published_moments import (
    import_published,
    published_files,
)
from flwr_collabedit.editors.second_moment_file import read_card
from flwr_collabedit.editors.second_moment_folder import find_second_moments
from flwr_collabedit.errors import SecondMomentError
from flwr_collabedit.models.language_model import LanguageModel

D_KEY = 64


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return pico_language_model("gpt2")


def keys(count: int = 500, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed).normal(size=(count, D_KEY))
    return (draw + 1).astype(np.float32)


def write_npz(lm: LanguageModel, root: Path, layer: int = 0, **changes: object) -> Path:
    """Write what ``CombinedStat(mom2=SecondMoment()).save`` of the authors writes."""
    folder = root / "gpt2-xl" / "wikipedia_stats"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{lm.down_projection_name(layer)}_float32_mom2_100000.npz"
    rows = keys(seed=layer)
    state = {
        "mom2.constructor": "util.runningstats.SecondMoment()",
        "mom2.count": len(rows),
        "mom2.mom2": rows.T @ rows,
        "sample_size": 100_000,
        **changes,
    }
    np.savez(path, **{key: value for key, value in state.items() if value is not None})
    return path


def test_a_published_file_is_divided_by_its_count_and_found(lm, tmp_path: Path):
    rows = keys(seed=1)
    total = rows.T @ rows
    total[0, 1] += 0.01  # as rounding in float32 leaves it
    path = write_npz(lm, tmp_path, layer=1, **{"mom2.mom2": total})

    ours = import_published(lm, 1, path, tmp_path / "ours")
    found = find_second_moments(lm, (1,), tmp_path / "ours")

    exact = torch.from_numpy(rows).double()
    matrix = found[lm.weight_name(1)]
    torch.testing.assert_close(matrix, exact.T @ exact / 500, rtol=1e-4, atol=1e-6)
    assert torch.equal(matrix, matrix.T)
    card = read_card(ours)
    assert (card.num_tokens, card.num_documents, card.shrinkage) == (500, 100_000, 0)
    source = card.source
    assert (source.corpus, source.dtype, source.origin) == (
        "wikipedia",
        "float32",
        "npz",
    )
    assert source.layer == 1


def test_files_are_matched_with_layers_by_their_names(lm, tmp_path: Path):
    paths = {layer: write_npz(lm, tmp_path, layer) for layer in (0, 2)}
    folder = paths[0].parent

    assert published_files(lm, folder) == paths
    assert published_files(lm, folder, [2]) == {2: paths[2]}
    assert published_files(lm, paths[2]) == {2: paths[2]}
    renamed = paths[0].rename(folder / "any.npz")
    assert published_files(lm, renamed, [1]) == {1: renamed}


def test_a_layer_without_a_file_and_a_file_of_another_layer_are_refused(lm, tmp_path):
    path = write_npz(lm, tmp_path, 0)

    for where, layers in [
        (path.parent, [1]),
        (path, [1]),
        (tmp_path, []),
        (path, [0, 1]),
    ]:
        with pytest.raises(
            SecondMomentError, match=r"Expected one file such as '.*npz'"
        ):
            published_files(lm, where, layers)
    other = pico_language_model("llama")
    with pytest.raises(SecondMomentError, match=r"model.layers.0.*c_proj_float32"):
        published_files(other, path)


def _unsymmetric() -> np.ndarray:
    rows = keys()
    total = rows.T @ rows
    total[0, 1] *= 3
    return total


def _indefinite() -> np.ndarray:
    rows = keys()
    total = rows.T @ rows
    return total - 300 * np.eye(D_KEY, dtype=np.float32)


def _negative() -> np.ndarray:
    return -_indefinite() - 1e4 * np.eye(D_KEY, dtype=np.float32)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"mom2.mom2": np.eye(3, dtype=np.float32)},
            r"shape \(64, 64\).*found \(3, 3\)",
        ),
        ({"mom2.mom2": np.full((D_KEY, D_KEY), np.nan)}, "finite entries"),
        ({"mom2.mom2": _unsymmetric()}, "a symmetric matrix.*asymmetry"),
        ({"mom2.mom2": np.zeros((D_KEY, D_KEY))}, "a symmetric matrix.*nan"),
        ({"mom2.mom2": _indefinite()}, "semidefinite.*an eigenvalue of -"),
        ({"mom2.mom2": _negative()}, "semidefinite"),
        ({"mom2.mom2": np.eye(D_KEY, dtype=np.int64)}, "floats"),
        ({"mom2.mom2": None}, "arrays 'mom2.mom2' and 'mom2.count'"),
        ({"mom2.count": None}, "arrays 'mom2.mom2' and 'mom2.count'"),
        ({"mom2.count": 0}, "count > 0"),
        ({"mom2.count": np.array([1, 2])}, "arrays 'mom2.mom2' and 'mom2.count'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_a_second_moment_is_refused(lm, tmp_path: Path, changes, said):
    path = write_npz(lm, tmp_path, **changes)

    with pytest.raises(SecondMomentError, match=f"(?s){said}") as error:
        import_published(lm, 0, path, tmp_path / "ours")

    assert path.name in str(error.value)
    assert not (tmp_path / "ours").exists()


def test_a_damaged_file_is_refused(lm, tmp_path: Path):
    path = write_npz(lm, tmp_path)
    path.write_bytes(path.read_bytes()[:400])

    with pytest.raises(SecondMomentError, match=r"arrays 'mom2.mom2'"):
        import_published(lm, 0, path, tmp_path)


def test_eigenvalues_that_rounding_pushed_below_zero_are_lifted(lm, tmp_path: Path):
    rows = keys(20)  # rank 20 of 64
    total = rows.T @ rows - 1e-5 * np.eye(D_KEY, dtype=np.float32)
    path = write_npz(lm, tmp_path, **{"mom2.mom2": total.astype(np.float32)})

    ours = import_published(lm, 0, path, tmp_path / "ours")

    matrix = find_second_moments(lm, (0,), tmp_path / "ours")[lm.weight_name(0)]
    assert 0 < read_card(ours).shrinkage <= 1e-5
    assert float(torch.linalg.eigvalsh(matrix).min()) > 0
