"""No fact's text reaches the server: not in replies, reports, logs or errors."""

import json
import logging

import pytest
from flwr.app import Context
from flwr.serverapp.exception import AggregationError
from pico import pico_language_model

from flwr_collabedit.algebra.priors import ridge_priors
from flwr_collabedit.client import EditingClient
from flwr_collabedit.client_app import make_client_app
from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.models.fingerprint import describe
from flwr_collabedit.strategies import CollabEditStrategy
from simulations.in_process import InProcessGrid

SECRETS = ("Danielle Darrieux", "mother tongue", "Portuguese")


def case(number: int, target: str = SECRETS[2]) -> EvaluationCase:
    return EvaluationCase(
        request=EditRequest(
            case_id=f"case-{number}",
            prompt=f"The {SECRETS[1]} of {{}} is",
            subject=f"{SECRETS[0]} {number}",
            target_new=target,
        ),
        target_true="French",
    )


def run(folder, cases_by_client, **options):
    lm = pico_language_model("gpt2")
    memit = MemitConfig(layers=(0, 1), num_gradient_steps=2)

    def client_fn(context: Context) -> EditingClient:
        index = int(context.node_config["partition-id"])
        return EditingClient(
            lm,
            [cases_by_client[index]],
            name=f"party-{index}",
            state_folder=folder / str(index),
        )

    import torch

    model = describe(lm, memit.layers)
    moments = {n: torch.eye(s[1]).double() for n, s in model.shapes.items()}
    strategy = CollabEditStrategy(
        model,
        ridge_priors(moments, 10.0),
        hyperparameters=memit.to_json(),
        contexts=ContextTemplates().to_json(),
        **options,
    )
    grid = InProcessGrid(make_client_app(client_fn), len(cases_by_client))
    strategy.start(grid, num_rounds=1)
    return strategy


def assert_no_secret(text: str) -> None:
    for secret in SECRETS:
        assert secret not in text


def test_a_round_tells_who_did_what_and_no_fact(tmp_path, caplog, capsys):
    caplog.set_level(logging.DEBUG)

    strategy = run(tmp_path, [[case(1), case(2)], [case(3)]])

    report = strategy.reports[-1]
    assert [report.clients[f"party-{i}"]["status"] for i in range(2)] == ["ok", "ok"]
    assert report.clients["party-0"]["upload-bytes"] > 0
    assert "Round 1, party-0: ok, 2 edits" in "\n".join(report.client_lines())
    assert_no_secret(json.dumps([one.to_dict() for one in strategy.reports]))
    out, err = capsys.readouterr()
    assert_no_secret(caplog.text + out + err)


@pytest.mark.parametrize("longest", [300], ids=["a target that does not fit"])
def test_a_clients_failure_is_told_without_its_fact(tmp_path, capfd, longest):
    broken = case(1, " ".join([SECRETS[2]] * longest))

    strategy = run(tmp_path, [[broken], [case(2)]], min_replies=1, evaluate=False)

    (reason,) = strategy.reports[-1].dropped.values()
    assert "the client's own log says more" in reason
    assert_no_secret(reason)
    assert_no_secret(json.dumps(strategy.reports[-1].to_dict()))
    entry = strategy.reports[-1].clients
    assert entry["party-1"]["status"] == "ok"
    assert [e["status"] for n, e in entry.items() if n != "party-1"] == ["left out"]


def test_nor_does_the_error_that_ends_the_run(tmp_path):
    broken = case(1, " ".join([SECRETS[2]] * 300))

    with pytest.raises(AggregationError) as raised:
        run(tmp_path, [[broken], [case(2)]], evaluate=False)

    assert_no_secret(str(raised.value))
