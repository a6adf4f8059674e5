"""Settings of many rounds reach the strategy and the clients."""

from pathlib import Path

import pytest
import torch
from flwr.app import Context, RecordDict

from flwr_collabedit.algebra.priors import RidgePrior
from flwr_collabedit.conflict_resolution import Resolution
from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.fact_tags import TagKey
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.strategies import DeclarationRules, RoundGuard, Withdrawal
from simulations import client_app, experiment
from simulations.run_folder import RunFolder
from simulations.settings import ExperimentSettings
from simulations.strategies import make_strategy

MODEL = EditedModel(fingerprint="f", shapes={"a": (2, 3), "b": (2, 3)})
PRIORS = {name: RidgePrior(torch.eye(3), 7.0) for name in MODEL.shapes}
D4S = {"history": "d4s", "layer_schedule": "frozen"}


def settings(folder="/nowhere/run", **config) -> ExperimentSettings:
    found = {name.replace("_", "-"): value for name, value in config.items()}
    return ExperimentSettings.from_run_config({"output-folder": str(folder), **found})


def made(folder="/nowhere/run", **config):
    memit = MemitConfig(layers=(0, 1), second_moment_weight=7.0)
    given = (MODEL, memit, ContextTemplates(), lambda: PRIORS, lambda report: None)
    return make_strategy(settings(folder, **config), *given)


def test_the_history_and_its_betas():
    assert made().history.option == "none"
    assert made(**D4S).history.option == "d4s"
    found = made(history="dynamic-covariance", beta_0=0.5, beta_1=3.0).history
    assert (found.option, found.betas) == ("dynamic-covariance", (0.5, 3.0))


def test_withdrawals_of_clients_and_rounds_are_the_servers():
    found = made(**D4S, withdraw="client:client-2@4, case:17@3,round:1@2")

    texts = ["client:client-2@4", "round:1@2"]
    assert list(found.withdrawals) == list(map(Withdrawal.parse, texts))
    assert found.declarations.take_back


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, None),
        ({"conflict_share": 0.5}, None),
        (
            {"conflict_policy": "majority"},
            DeclarationRules(resolution=Resolution("majority")),
        ),
        (
            {
                "conflict_policy": "priority",
                "conflict_priority": "client-1,client-0",
                "overlap": "once",
                "conflict_augment": True,
            },
            DeclarationRules(
                resolution=Resolution("priority", "once", ("client-1", "client-0")),
                augment=True,
            ),
        ),
        (
            {"presence": "residual", "present_from": 0.6, "skip_present": True},
            DeclarationRules(presence="residual", present_from=0.6, skip_present=True),
        ),
        ({**D4S, "withdraw": "case:1@2"}, DeclarationRules(take_back=True)),
        ({**D4S, "withdraw": "round:1@2"}, None),
    ],
)
def test_what_is_declared(config, expected):
    assert made(**config).declarations == expected


def test_the_guards_bounds():
    assert made().keeper.guard == RoundGuard(None, 0.1, 0.1)
    found = made(
        max_perplexity_increase=0.4,
        warn_perplexity_increase=0.2,
        warn_norm_increase=0.3,
    )
    assert found.keeper.guard == RoundGuard(0.4, 0.2, 0.3)


@pytest.mark.parametrize(("kept", "number"), [("last", 1), ("all", 0)])
def test_checkpoints_are_in_the_run_folder(kept, number, tmp_path):
    options = made(tmp_path, checkpoints=kept).options

    assert options.checkpoint_folder == RunFolder(tmp_path).checkpoints
    assert options.keep_checkpoints == number
    assert made(tmp_path, checkpoints="none").options.checkpoint_folder is None


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"withdraw": "round:1@2"}, "withdraw.*history = 'none'"),
        ({"beta_1": 2.0}, "beta-1 = 2.0 is not read with history"),
        ({"history": "d4s"}, "frozen"),
        ({"history": "d5s"}, "history = 'd5s'"),
        ({"overlap": "once"}, "overlap.*conflict-policy"),
        ({"conflict_policy": "prio"}, "conflict-policy = 'prio'"),
        ({"conflict_policy": "report", "conflict_augment": True}, "conflict-augment"),
        ({"conflict_policy": "majority", "conflict_priority": "a"}, "'majority'"),
        ({"conflict_later": True}, "conflict-later.*conflict-share"),
        ({"skip_present": True}, "skip-present.*presence"),
        ({"max_perplexity_increase": -0.1}, "max-perplexity-increase = -0.1"),
        ({"checkpoints": "some"}, "checkpoints = 'some'"),
        (
            {"strategy": "ties", "layer_schedule": "local", "history": "d4s"},
            "'ties' does not read history",
        ),
    ],
)
def test_what_nothing_would_read_is_refused(config, named):
    with pytest.raises(ConfigurationError, match=named):
        settings(**config)


def client(found: ExperimentSettings, index: int):
    experiment.clients_rounds.cache_clear()
    config = {"partition-id": index, "num-partitions": found.num_clients}
    context = Context(1, 7, config, RecordDict(), found.to_run_config())
    return client_app.client_fn(context)


def test_the_clients_get_what_is_theirs(tmp_path: Path):
    found = settings(
        tmp_path,
        **{**D4S, "num_clients": 2, "num_edits": 8, "num_rounds": 2},
        conflict_policy="first-come",
        health_samples=3,
        withdraw="case:5@2",
    )
    RunFolder(tmp_path).start(found.to_run_config())
    RunFolder(tmp_path).make_conflict_key()

    clients = [client(found, index) for index in range(2)]

    key = TagKey.from_file(RunFolder(tmp_path).conflict_key)
    taken_back = []
    for one in clients:
        assert one.declaring.tag_key == key
        assert len(one.health.texts) == len(one.health.prompts) == 3
        edited = {c.request.subject for cases in one.edits.rounds for c in cases}
        texts = " ".join(one.health.texts + one.health.prompts)
        assert not any(subject in texts for subject in edited)
        back = one.declaring.withdrawals[2]
        taken_back += [c.request.case_id for c in one.edits.inside(back)]
        first = [c.request.case_id for c in one.edits.rounds[0]]
        assert back == EditSet.of({1: [p for p, c in enumerate(first) if c == 5]})
    held = [c.request.case_id for one in clients for c in one.edits.rounds[0]]
    assert taken_back == ([5] if 5 in held else [])
    assert 5 in held


def test_clients_have_no_key_and_no_texts_where_none_are_wanted(tmp_path: Path):
    found = settings(tmp_path, num_clients=2, num_edits=4, health_samples=0)

    one = client(found, 0)

    assert one.declaring.tag_key is None
    assert (one.health.texts, one.health.prompts) == ((), ())
    assert not one.declaring.withdrawals


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (1, "refuse")),
        ({"min_edits_per_upload": 3, "few_edits": "warn"}, (3, "warn")),
    ],
)
def test_every_client_has_the_bound_on_uploads(tmp_path: Path, given, expected):
    found = settings(tmp_path, num_clients=2, num_edits=4, **given)

    for index in range(2):
        guard = client(found, index).shared.guard
        assert (guard.min_edits, guard.few_edits) == expected


def test_a_key_of_ones_own_is_read(tmp_path: Path):
    key = TagKey.generate()
    key.to_file(tmp_path / "key.txt")
    found = settings(
        tmp_path / "run",
        **{"num_clients": 2, "num_edits": 4, "conflict_policy": "report"},
        conflict_key=str(tmp_path / "key.txt"),
    )

    assert client(found, 0).declaring.tag_key == key


@pytest.mark.parametrize("text", ["case:5", "case:@2", "case:5@x"])
def test_a_case_that_cannot_be_read_is_refused(tmp_path: Path, text):
    found = settings(tmp_path, **D4S, num_clients=2, num_edits=4, withdraw=text)

    with pytest.raises(ConfigurationError, match="such as 'case:ID@ROUND'"):
        experiment.taken_back(found, 0)


@pytest.mark.parametrize("later", [False, True])
def test_a_share_of_the_cases_is_contradicted_by_another_client(tmp_path, later):
    plain = {"num_clients": 3, "num_edits": 12, "num_rounds": 2}
    experiment.clients_rounds.cache_clear()
    before = experiment.clients_rounds(settings(tmp_path, **plain))
    rounds = experiment.clients_rounds(
        settings(tmp_path, **plain, conflict_share=0.25, conflict_later=later)
    )

    places = {
        (case.request.subject, case.request.prompt): (client, number, case)
        for client, own in enumerate(before)
        for number, cases in enumerate(own)
        for case in cases
    }
    added = 0
    for client_index, own in enumerate(rounds):
        for number, cases in enumerate(own):
            mine = before[client_index][number]
            assert [case for case in cases if case in mine] == mine
            for case in (case for case in cases if case not in mine):
                owner, first, other = places[case.request.subject, case.request.prompt]
                assert owner != client_index
                assert number > first if later else number == first
                assert case.request.target_new != other.request.target_new
                added += 1
    assert added == 3


def test_rounds_may_repeat_all_cases(tmp_path):
    experiment.clients_rounds.cache_clear()
    found = experiment.clients_rounds(
        settings(tmp_path, num_clients=2, num_edits=6, num_rounds=3, repeat_rounds=True)
    )

    for own in found:
        assert len(own) == 3
        assert own[0] == own[1] == own[2]
    assert sum(len(own[0]) for own in found) == 6
