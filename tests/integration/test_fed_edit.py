"""FedEdit with real language models: what is selected, written, kept and refused."""

from pathlib import Path

import pytest
import torch
from federating import IN_ORDER, MEMIT, ROUNDS, SERVER, make_grid
from flwr.app import ConfigRecord
from flwr.serverapp.exception import AggregationError

from flwr_collabedit.client.personal_store import PersonalStore
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.messages.payloads import CONFIG
from flwr_collabedit.messages.personal_task import RE_EDIT_SQUARES
from flwr_collabedit.models.fingerprint import describe
from flwr_collabedit.strategies import DeclarationRules, FedEditStrategy, RoundGuard


def known_case(provenance: str):
    sender, slot, index = provenance.split("/")
    return ROUNDS[int(sender.removeprefix("client-"))][int(slot) - 1][int(index)]


def personal_grid(lm, moments, folder: Path, **options):
    return make_grid(lm, folder, moments, known_case=known_case, **options)


def make_server(lm, **options):
    common = {**SERVER, "wire_dtype": "float64", "run_id": "run", "alpha": -1.0}
    return FedEditStrategy(describe(lm, MEMIT.layers), **{**common, **options})


def personal(lm, folder: Path):
    shapes = describe(lm, MEMIT.layers)
    return {
        i: PersonalStore(folder / str(i)).load("run", shapes.fingerprint, shapes.shapes)
        for i in range(len(ROUNDS))
    }


def run(lm, moments, folder: Path, num_rounds=2, order=IN_ORDER, **options):
    server = make_server(lm, **options)
    grid = personal_grid(lm, moments, folder, order=order)
    result = server.start(grid, num_rounds=num_rounds)
    assert not result.arrays
    return server, personal(lm, folder)


def assert_same(one, other):
    for i, model in one.items():
        assert model.received == other[i].received
        for name, delta in model.deltas.items():
            assert torch.allclose(delta, other[i].deltas[name], atol=1e-10)


def test_without_a_condition_every_client_with_edits_gets_all_of_the_others(
    lm, moments, tmp_path
):
    server, models = run(lm, moments, tmp_path, evaluate=False)

    assert models[0].received == ("client-2/1/0", "client-2/2/0", "client-3/2/0")
    assert models[1].received == ()  # no edits: nothing is relevant to it
    assert models[2].received == (
        *("client-0/1/0", "client-0/1/1"),
        *("client-0/2/0", "client-3/2/0"),
    )
    counts = server.reports[0].mediator
    assert (counts["uploaded"], counts["selected"], counts["reused"]) == (3, 3, 3)
    assert counts["rejected"] == counts["offered"] - 3
    assert counts["steps-saved"] > 0
    for report in server.reports:
        before, after = (report.mediator[name] for name in RE_EDIT_SQUARES)
        assert 0 < after < before


def test_alpha_one_is_single_client_editing(lm, moments, tmp_path):
    server, models = run(lm, moments, tmp_path, evaluate=False, alpha=1.0)

    assert all(model.received == () for model in models.values())
    assert all(report.mediator.get("selected", 0) == 0 for report in server.reports)
    assert any(delta.any() for delta in models[0].deltas.values())
    assert not any(delta.any() for delta in models[1].deltas.values())


@pytest.mark.parametrize("similarity", ["z", "delta"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.6])
def test_server_and_client_select_the_same(lm, moments, tmp_path, alpha, similarity):
    options = {"evaluate": False, "alpha": alpha, "similarity": similarity}

    by_server, one = run(lm, moments, tmp_path / "s", selection="server", **options)
    by_client, other = run(lm, moments, tmp_path / "c", selection="client", **options)

    assert_same(one, other)
    for left, right in zip(by_server.reports, by_client.reports, strict=True):
        # Counts, and two sums over clients in the order of their replies.
        assert left.mediator == pytest.approx(right.mediator)


def test_the_order_of_clients_is_irrelevant(lm, moments, tmp_path):
    _, one = run(lm, moments, tmp_path / "1", evaluate=False)
    _, other = run(lm, moments, tmp_path / "2", order=(3, 1, 0, 2), evaluate=False)

    assert_same(one, other)


def test_a_restarted_client_goes_on_with_the_same_model(lm, moments, tmp_path):
    _, whole = run(lm, moments, tmp_path / "whole", evaluate=False)
    server = make_server(lm, evaluate=False)
    server.start(personal_grid(lm, moments, tmp_path / "parts"), num_rounds=1)
    # New client objects, that find what the old ones left; the server's second slot.
    grid = personal_grid(lm, moments, tmp_path / "parts")
    server.configure_train(2, server.initial_arrays(), ConfigRecord(), grid)

    assert_same(whole, personal(lm, tmp_path / "parts"))


def test_own_and_received_facts_are_scored_by_client(lm, moments, tmp_path):
    server, _ = run(lm, moments, tmp_path)

    found = server.reports[-1].personal
    assert found["clients"]["client-0"]["own"]["records"] == 3
    assert found["clients"]["client-0"]["received"]["records"] == 3
    assert found["clients"]["client-1"]["all"]["records"] == 0
    means = found["mean"]["all"]
    rows = [row["all"] for row in found["clients"].values() if row["all"]["records"]]
    records = sum(row["records"] for row in rows)
    by_hand = sum(row["EA"] * row["records"] for row in rows) / records
    assert means["EA"] == pytest.approx(by_hand)
    assert means["records"] == records


def test_the_base_model_is_left_as_it_was(lm, moments, tmp_path):
    before = {name: p.clone() for name, p in lm.model.named_parameters()}

    run(lm, moments, tmp_path)

    assert all(torch.equal(p, before[n]) for n, p in lm.model.named_parameters())


def test_another_runs_folder_is_an_error_before_the_first_slot(lm, moments, tmp_path):
    run(lm, moments, tmp_path, num_rounds=1, evaluate=False)

    with pytest.raises(AggregationError, match=r"run_id .{0,2}another"):
        run(lm, moments, tmp_path, run_id="another")
    assert personal(lm, tmp_path)[0].slot == 1


def test_a_slot_that_repeats_is_refused_by_the_client(lm, moments, tmp_path):
    run(lm, moments, tmp_path, num_rounds=1, evaluate=False)
    before = personal(lm, tmp_path)

    with pytest.raises(AggregationError, match="through with slot 1"):
        run(lm, moments, tmp_path, num_rounds=1, evaluate=False)
    assert_same(before, personal(lm, tmp_path))


def test_two_clients_of_one_name_are_told(lm, moments, tmp_path):
    grid = personal_grid(lm, moments, tmp_path, rename=lambda name: "same")

    with pytest.raises(AggregationError, match="has the name 'same' already"):
        make_server(lm, evaluate=False).start(grid, num_rounds=1)


def test_vectors_of_another_slot_are_refused(lm, moments, tmp_path):
    server = make_server(lm, evaluate=False, min_replies=3)
    grid = personal_grid(lm, moments, tmp_path)
    pull = grid.pull_messages

    def replayed(message_ids):
        for reply in pull(message_ids):
            if reply.metadata.src_node_id == 1000 and reply.has_content():
                reply.content.config_records[CONFIG]["server-round"] = "7"
            yield reply

    grid.pull_messages = replayed
    server.start(grid, num_rounds=1)

    [reason] = server.reports[0].dropped.values()
    assert "server-round" in reason


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 1.5},
        {"alpha": -1.01},
        {"alpha_percentile": 0.0},
        {"alpha_percentile": 101.0},
        {"num_slots": 0},
        {"declarations": DeclarationRules(presence="answer")},
        {"guard": RoundGuard(max_perplexity_increase=0.1)},
        {"checkpoint_folder": Path("somewhere")},
    ],
)
def test_options_out_of_range_are_errors_before_any_round(lm, options):
    with pytest.raises(ConfigurationError):
        make_server(lm, **options)


def test_a_percentile_sets_alpha_slot_by_slot(lm, moments, tmp_path):
    server, _ = run(lm, moments, tmp_path, evaluate=False, alpha_percentile=50.0)

    alphas = [report.mediator["alpha"] for report in server.reports]
    assert all(-1 < alpha < 1 for alpha in alphas)
    assert alphas[0] != alphas[1]
