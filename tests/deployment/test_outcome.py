"""What is read from a deployment's logs and deltas."""

import pytest
import torch
from safetensors.torch import save_file

from deployment.outcome import MessageCost, message_costs, summary_of, weight_gaps
from flwr_collabedit.errors import CollabEditError

# Three messages to one party: two measure, the last one scores.
LOG = """
INFO :  client-0: model loaded in 1.5 s
INFO :  client-0: targets: 8 of 8, about 3 s left
INFO :  client-0: targets: 8 optimised, 0 kept
INFO :  client-0: model loaded in 0.9 s
INFO :  client-0: targets: 0 optimised, 8 kept
INFO :  client-0: model loaded in 2.0 s
"""


def write_deltas(folder, **deltas):
    folder.mkdir()
    tensors = {n: torch.tensor(d, dtype=torch.float64) for n, d in deltas.items()}
    save_file(tensors, folder / "delta.safetensors")
    return folder


def test_a_log_tells_what_each_message_cost(tmp_path):
    log = tmp_path / "process.log"
    log.write_text(LOG)

    costs = message_costs(log)

    assert costs == [MessageCost(1.5, 8, 0), MessageCost(0.9, 0, 8), MessageCost(2.0)]


def test_a_log_without_messages_tells_nothing(tmp_path):
    log = tmp_path / "process.log"
    log.write_text("INFO : Starting Flower SuperNode\n")

    assert message_costs(log) == []


def test_gaps_are_relative_to_the_simulation(tmp_path):
    simulated = write_deltas(tmp_path / "s", a=[[3.0, 0.0], [0.0, 4.0]], b=[[2.0]])
    deployed = write_deltas(tmp_path / "d", a=[[3.0, 0.5], [0.0, 4.0]], b=[[2.0]])

    gaps = {gap.name: gap for gap in weight_gaps(deployed, simulated)}

    assert (gaps["a"].gap, gaps["a"].is_equal) == (0.1, False)
    assert (gaps["b"].gap, gaps["b"].is_equal) == (0.0, True)


def test_deltas_of_other_weights_are_refused(tmp_path):
    simulated = write_deltas(tmp_path / "s", a=[[1.0]])
    deployed = write_deltas(tmp_path / "d", b=[[1.0]])

    with pytest.raises(CollabEditError, match=r"\['a'\].*\['b'\]"):
        weight_gaps(deployed, simulated)


def test_two_runs_that_wrote_nothing_do_not_agree(tmp_path):
    simulated = write_deltas(tmp_path / "s", a=[[0.0]])
    deployed = write_deltas(tmp_path / "d", a=[[0.0]])

    with pytest.raises(CollabEditError, match="'a'"):
        weight_gaps(deployed, simulated)


def test_a_run_that_did_not_finish_is_told(tmp_path):
    with pytest.raises(CollabEditError, match="did not finish"):
        summary_of(tmp_path)
