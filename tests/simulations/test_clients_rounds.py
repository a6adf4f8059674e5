"""A simulation's cases: partition, copies and rounds as the settings say."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from pico import pico_language_model

from flwr_collabedit.data import clusters as clusters_module
from flwr_collabedit.data.fact_world import embedded_cases
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.errors import ConfigurationError
from simulations import clusters, experiment
from simulations.settings import ExperimentSettings


@pytest.fixture(autouse=True)
def _forget() -> None:
    experiment.clients_rounds.cache_clear()


def make_settings(folder: Path, **changes: object) -> ExperimentSettings:
    return ExperimentSettings(
        output_folder=str(folder), num_clients=3, num_edits=30, **changes
    )


def case_ids(rounds: list[list[EvaluationCase]]) -> list[list[int | str]]:
    return [[case.request.case_id for case in cases] for cases in rounds]


def test_copies_come_on_top_and_in_every_round(tmp_path: Path):
    alone = experiment.clients_rounds(make_settings(tmp_path))
    shared = experiment.clients_rounds(make_settings(tmp_path, shared_fraction=0.4))

    for own, held in zip(alone, shared, strict=True):
        mine = [case for case in chain(*held) if case.copied_from is None]
        assert mine == list(chain(*own))
        assert [len(cases) for cases in held] == [7, 7]
        assert all(any(c.copied_from is not None for c in cases) for cases in held)


def test_the_seed_decides_copies_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cases = embedded_cases(30, subjects="real", seed=0)
    # One split for all seeds, so that nothing but the copies can differ.
    monkeypatch.setattr(
        experiment,
        "split_over_clients",
        lambda *args, **options: [cases[:10], cases[10:20], cases[20:]],
    )
    first, other, again = (
        [
            case_ids(rounds)
            for rounds in experiment.clients_rounds(
                make_settings(tmp_path / name, shared_fraction=0.4, seed=seed)
            )
        ]
        for name, seed in (("a", 1), ("b", 2), ("c", 1))
    )

    assert first == again
    assert first != other


def test_prompts_are_clustered_once_for_server_and_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = make_settings(tmp_path, partition="by-subject-cluster")
    at_server = experiment.clients_rounds(settings)
    experiment.clients_rounds.cache_clear()
    monkeypatch.delattr(clusters_module, "cluster_texts")

    at_client = experiment.clients_rounds(settings)

    assert at_client == at_server
    assert sorted(chain(*chain(*map(case_ids, at_client)))) == list(range(30))


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"num_clients": 2}, {"sentence_model": "x"}, {"num_edits": 29}],
    ids=lambda change: next(iter(change)),
)
def test_other_clusters_are_other_files(
    change: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(clusters, "_find", lambda settings, texts: [0] * len(texts))
    settings = make_settings(tmp_path, partition="by-subject-cluster")

    cases = embedded_cases(30, subjects="real", seed=0)

    for each in (settings, settings.model_copy(update=change)):
        clusters.prompt_clusters(each, cases[: each.num_edits])

    assert len(list((tmp_path / "cache").glob("clusters-*.json"))) == 2


def test_a_sentence_model_gives_the_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def vectors(name: str, texts: list[str], *, device: object) -> np.ndarray:
        assert name == "some/model"
        return np.eye(3)[[len(text) % 3 for text in texts]] + 0.01

    monkeypatch.setattr(clusters, "sentence_vectors", vectors)
    settings = make_settings(
        tmp_path, partition="by-subject-cluster", sentence_model="some/model"
    )

    for rounds in experiment.clients_rounds(settings):
        assert len({len(case.rewrite_prompt) % 3 for case in chain(*rounds)}) == 1


def test_chats_are_the_users_turns_of_the_same_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plain = experiment.clients_rounds(make_settings(tmp_path))
    lm = pico_language_model("gpt2")
    lm.tokenizer.chat_template = "Q: {{ messages[0]['content'] }}\nA:"
    monkeypatch.setattr(experiment, "language_model", lambda settings: lm)
    settings = make_settings(tmp_path, chat_template=True)

    chats = experiment.clients_rounds(settings)

    pairs = zip(chain(*chain(*plain)), chain(*chain(*chats)), strict=True)
    for case, chat in pairs:
        assert chat.request.prompt == f"Q: {case.request.prompt}\nA:"
        assert chat.request.target_new == case.request.target_new
        questions = zip(case.neighborhood, chat.neighborhood, strict=True)
        assert all(b.prompt == f"Q: {a.prompt}\nA:" for a, b in questions)
    assert experiment.contexts(settings, lm) == ContextTemplates()


def test_a_plain_models_chats_are_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="chat template"):
        experiment.clients_rounds(make_settings(tmp_path, chat_template=True))


def test_starters_are_not_read_with_chats():
    config = {"chat-template": True, "context-starters": "The"}

    with pytest.raises(ConfigurationError, match="not read with chat-template = True"):
        ExperimentSettings.from_run_config(config)
