"""Local-only with real language models: who edits what, what is kept, what leaves."""

from pathlib import Path
from typing import Any

import pytest
import torch
from federating import CASES, CONTEXTS, MEMIT, ROUNDS, SERVER, make_grid
from flwr.app import ConfigRecord
from flwr.serverapp.exception import AggregationError

from flwr_collabedit.algebra.priors import ridge_priors
from flwr_collabedit.client.local_store import LocalModel, LocalRun, LocalStore
from flwr_collabedit.editors.editor import ModelEdit
from flwr_collabedit.editors.editor_config import EditorConfig
from flwr_collabedit.editors.grace import GraceEditor
from flwr_collabedit.editors.grace_config import GraceConfig
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.evaluation.evaluate import evaluate_cases
from flwr_collabedit.evaluation.metrics import MetricSums, summarize
from flwr_collabedit.messages.payloads import ARRAYS, read_deltas
from flwr_collabedit.models.codebook import Codebook, applied_codebook
from flwr_collabedit.models.fingerprint import describe
from flwr_collabedit.strategies import (
    CollabEditStrategy,
    DeclarationRules,
    LocalOnlyStrategy,
    RoundGuard,
)

GRACE = GraceConfig(layers=(1,), radius=1e-3, num_gradient_steps=8)
# Three clients and rounds; one client has no edits.
OWN = [[CASES[:1], CASES[1:3], []], [[], [], []], [CASES[3:4], [], CASES[4:6]]]


def make_server(lm, config: EditorConfig = GRACE, **options: Any) -> LocalOnlyStrategy:
    given = {**SERVER, "hyperparameters": config.to_json(), "min_available_nodes": 3}
    given |= {"run_id": "run", "evaluate": False, **options}
    return LocalOnlyStrategy(describe(lm, config.layers), **given)


def grid_of(lm, folder: Path, moments=None, **options: Any):
    options = {"rounds": OWN, "order": (0, 1, 2), **options}
    return make_grid(lm, folder, moments, **options)


def run_of(lm, config: EditorConfig = GRACE, run_id: str = "run") -> LocalRun:
    model = describe(lm, config.layers)
    return LocalRun(run_id, model.fingerprint, config.to_json())


def models(lm, folder: Path, config: EditorConfig = GRACE) -> list[LocalModel]:
    return [LocalStore(folder / str(i)).load(run_of(lm, config)) for i in range(3)]


def books(lm, folder: Path) -> list[Codebook]:
    found = [model.edit.codebook for model in models(lm, folder)]
    assert all(book is not None for book in found)
    return found


def requests(cases):
    return [case.request for case in cases]


def test_one_clients_memit_is_collabedit_of_one_client(lm, moments, tmp_path):
    one = {"order": (0,), "rounds": ROUNDS}
    alone = make_server(lm, MEMIT, min_available_nodes=1)

    result = alone.start(grid_of(lm, tmp_path / "a", moments, **one), num_rounds=2)

    server = CollabEditStrategy(
        describe(lm, MEMIT.layers),
        ridge_priors(moments, MEMIT.second_moment_weight),
        **{**SERVER, "min_available_nodes": 1, "evaluate": False},
        wire_dtype="float64",
    )
    arrays = server.start(grid_of(lm, tmp_path / "b", **one), num_rounds=2).arrays
    expected = read_deltas(arrays, server.model)
    model = LocalStore(tmp_path / "a" / "0").load(run_of(lm, MEMIT))
    assert not result.arrays
    assert model.server_round == 2
    assert model.edit.deltas.keys() == expected.keys()
    for name, delta in expected.items():
        assert (model.edit.deltas[name] - delta).norm() < 1e-9 * delta.norm()


def test_every_client_has_the_codebook_of_its_own_edits(lm, tmp_path):
    server = make_server(lm)

    server.start(grid_of(lm, tmp_path), num_rounds=3)

    for model, own in zip(models(lm, tmp_path), OWN, strict=True):
        result = GraceEditor(lm, GRACE).edit(requests([c for cs in own for c in cs]))
        assert model.server_round == 3
        assert model.edit.codebook is not None
        assert not model.edit.deltas
        for name, tensor in result.codebook.tensors().items():
            torch.testing.assert_close(getattr(model.edit.codebook, name), tensor)
    assert [report.num_edits for report in server.reports] == [2, 2, 2]
    assert server.reports[1].edits_by_client == {
        **{"client-0": 2, "client-1": 0, "client-2": 0}
    }


def test_nothing_of_the_edits_leaves_a_client(lm, moments, tmp_path):
    seen = []
    grid = grid_of(lm, tmp_path, moments)
    pull = grid.pull_messages

    def watched(message_ids):
        for reply in pull(message_ids):
            seen.append(reply.content.array_records[ARRAYS])
            yield reply

    grid.pull_messages = watched
    server = make_server(lm, MEMIT)
    server.start(grid, num_rounds=2)

    assert len(seen) == 6
    assert not any(list(arrays) for arrays in seen)
    assert all(report.upload_bytes == 0 for report in server.reports)


def test_each_client_is_scored_on_its_own_model(lm, tmp_path):
    base = {name: one.clone() for name, one in lm.model.named_parameters()}
    server = make_server(lm, evaluate=True)

    server.start(grid_of(lm, tmp_path), num_rounds=2)

    expected, unedited = MetricSums(), MetricSums()
    for own in OWN:
        cases = [case for by_round in own[:2] for case in by_round]
        unedited = unedited + evaluate_cases(lm, cases).sums
        with applied_codebook(
            lm, GraceEditor(lm, GRACE).edit(requests(cases)).codebook
        ):
            expected = expected + evaluate_cases(lm, cases).sums
    found = server.reports[-1].evaluation
    assert found["EM"] == pytest.approx(summarize(expected)["EM"])
    assert found["EM"] > summarize(unedited)["EM"] + 1e-3
    by_client = server.reports[-1].personal["clients"]
    assert [by_client[f"client-{i}"]["own"]["records"] for i in range(3)] == [3, 0, 1]
    assert all(torch.equal(one, base[n]) for n, one in lm.model.named_parameters())


def test_a_restarted_client_goes_on_with_its_model(lm, tmp_path):
    make_server(lm).start(grid_of(lm, tmp_path / "whole"), num_rounds=3)
    make_server(lm).start(grid_of(lm, tmp_path / "parts"), num_rounds=1)

    # New client objects, that find what the old ones left; the server's other rounds.
    server = make_server(lm)
    for number in (2, 3):
        grid = grid_of(lm, tmp_path / "parts")
        server.configure_train(number, server.initial_arrays(), ConfigRecord(), grid)

    pairs = zip(
        books(lm, tmp_path / "whole"), books(lm, tmp_path / "parts"), strict=True
    )
    for whole, part in pairs:
        assert torch.equal(whole.keys, part.keys)
        assert torch.equal(whole.values, part.values)


def test_a_round_that_repeats_is_refused_and_written_once(lm, tmp_path):
    make_server(lm).start(grid_of(lm, tmp_path), num_rounds=1)
    before = (tmp_path / "0" / "local_model.safetensors").read_bytes()

    with pytest.raises(AggregationError, match="through with round 1"):
        make_server(lm).start(grid_of(lm, tmp_path), num_rounds=1)

    assert (tmp_path / "0" / "local_model.safetensors").read_bytes() == before


def test_a_model_of_a_later_round_is_not_scored_for_an_earlier(lm, tmp_path):
    make_server(lm).start(grid_of(lm, tmp_path), num_rounds=2)

    with pytest.raises(AggregationError, match="through with round 2"):
        make_server(lm).start(grid_of(lm, tmp_path), num_rounds=1)
    with pytest.raises(AggregationError, match=r"Evaluation of round 0.*with round 2"):
        make_server(lm, evaluate=True).start(grid_of(lm, tmp_path), num_rounds=0)


def test_an_interrupted_round_leaves_the_model_of_the_round_before(
    lm, tmp_path, monkeypatch
):
    make_server(lm).start(grid_of(lm, tmp_path), num_rounds=1)
    server, grid = make_server(lm), grid_of(lm, tmp_path)
    edit = GraceEditor.edit

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(GraceEditor, "edit", broken)
    with pytest.raises(AggregationError, match="RuntimeError"):
        server.configure_train(2, server.initial_arrays(), ConfigRecord(), grid)
    assert [model.server_round for model in models(lm, tmp_path)] == [1, 1, 1]

    monkeypatch.setattr(GraceEditor, "edit", edit)
    server.configure_train(2, server.initial_arrays(), ConfigRecord(), grid)

    assert [len(book) for book in books(lm, tmp_path)] == [3, 0, 1]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"run_id": "another"}, r"run_id .{0,2}another"),
        ({"config": GRACE.model_copy(update={"radius": 2.0})}, "of hyperparameters"),
    ],
)
def test_another_runs_model_is_refused(lm, tmp_path, changes, text):
    make_server(lm).start(grid_of(lm, tmp_path), num_rounds=1)

    server, grid = make_server(lm, **changes), grid_of(lm, tmp_path)
    with pytest.raises(AggregationError, match=text):
        server.configure_train(2, server.initial_arrays(), ConfigRecord(), grid)

    assert [model.server_round for model in models(lm, tmp_path)] == [1, 1, 1]


def test_a_damaged_file_is_told(lm, tmp_path):
    store = LocalStore(tmp_path)
    store.save(LocalModel(1, ModelEdit({"w": torch.ones(2, 3)})), run_of(lm))
    store.path.write_bytes(store.path.read_bytes()[:-4])

    with pytest.raises(ConfigurationError, match="cannot be read"):
        store.load(run_of(lm))


def test_deltas_and_codebook_come_back_from_one_file(lm, tmp_path):
    book = GraceEditor(lm, GRACE).edit(requests(CASES[:2])).codebook
    delta = torch.randn(2, 3, dtype=torch.float64)
    store = LocalStore(tmp_path / "new")
    assert store.load(run_of(lm)) == LocalModel()

    store.save(LocalModel(4, ModelEdit({"w": delta}, book)), run_of(lm))

    found = LocalStore(tmp_path / "new").load(run_of(lm))
    assert found.server_round == 4
    assert torch.equal(found.edit.deltas["w"], delta)
    assert found.edit.codebook.module == book.module
    for name, tensor in book.tensors().items():
        assert torch.equal(getattr(found.edit.codebook, name), tensor)


@pytest.mark.parametrize(
    "options",
    [
        {"declarations": DeclarationRules(take_back=True)},
        {"guard": RoundGuard(max_perplexity_increase=0.1), "evaluate": True},
        {"checkpoint_folder": Path("somewhere")},
    ],
)
def test_options_for_a_shared_model_are_errors_before_any_round(lm, options):
    with pytest.raises(ConfigurationError):
        make_server(lm, **options)


def test_memit_needs_the_clients_second_moments(lm, tmp_path):
    with pytest.raises(AggregationError, match="second moments"):
        make_server(lm, MEMIT).start(grid_of(lm, tmp_path), num_rounds=1)


def test_memit_alone_is_the_editor_round_by_round(lm, moments, tmp_path):
    make_server(lm, MEMIT).start(grid_of(lm, tmp_path, moments), num_rounds=2)

    editor, edit = MemitEditor(lm, MEMIT, CONTEXTS, moments), ModelEdit()
    for cases in OWN[0][:2]:
        edit = ModelEdit(editor.edit(requests(cases), start=edit).deltas)
    found = models(lm, tmp_path, MEMIT)[0].edit.deltas
    assert all(torch.equal(found[name], one) for name, one in edit.deltas.items())
