"""The ClientApp of a deployment: what a SuperNode's node config gives it."""

import json
from itertools import chain

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from pico import pico_language_model

from flwr_collabedit.client_app import (
    app,
    cached_model,
    deployed_client,
    rounds_of,
)
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.fact_tags import TagKey
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.payloads import ARRAYS, CONFIG, METRICS, digest, to_record
from flwr_collabedit.models.fingerprint import describe

RECORDS = [
    {
        "case_id": index,
        "requested_rewrite": {
            "prompt": "The capital of {} is",
            "relation_id": "capital",
            "subject": subject,
            "target_new": {"str": "Rome"},
            "target_true": {"str": capital},
        },
        "paraphrase_prompts": [],
        "neighborhood_prompts": [],
    }
    for index, (subject, capital) in enumerate(
        [("France", "Paris"), ("Japan", "Tokyo"), ("Spain", "Madrid")]
    )
]


@pytest.fixture
def node_config(tmp_path):
    edits = tmp_path / "edits.json"
    edits.write_text(json.dumps(RECORDS), encoding="utf-8")
    return {
        "partition-id": 0,
        "num-partitions": 2,
        "model": "embedded",
        "edits-path": str(edits),
        "edits-per-round": 2,
        "state-folder": str(tmp_path / "state"),
    }


def context(node_config) -> Context:
    return Context(1, 7, node_config, RecordDict(), {})


def test_a_node_config_gives_model_edits_and_state(node_config, tmp_path):
    client = deployed_client(context(node_config))

    subjects = [
        [case.request.subject for case in edits] for edits in client.edits.rounds
    ]
    assert subjects == [["France", "Japan"], ["Spain"]]
    assert client.name == "node-7"
    assert client.targets.store.folder == tmp_path / "state"


def test_free_text_is_written_only_if_the_node_asks_for_it(node_config, tmp_path):
    assert deployed_client(context(node_config)).scores.text_quality is None

    known = tmp_path / "known.jsonl"
    record = {"target": "Rome", "relation_id": "capital", "texts": ["Rome has ruins"]}
    known.write_text(json.dumps(record), encoding="utf-8")
    asked = {"generation-tokens": 20, "reference-texts": str(known)}
    client = deployed_client(context({**node_config, **asked}))

    quality = client.scores.text_quality
    assert quality.num_tokens == 20
    case = client.edits.rounds[0][0]
    assert quality.reference.of(case, ["Rome has ruins"]) == pytest.approx(1.0)


def test_the_app_answers_a_servers_message(node_config):
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    lm = cached_model("embedded", "float32", "cpu")
    memit = MemitConfig(layers=(0, 1), num_gradient_steps=3)
    model = describe(lm, memit.layers)
    arrays = to_record(
        [f"{name}/delta" for name in model.parameters],
        [np.zeros(shape, np.float32) for shape in model.shapes.values()],
    )
    instruction = Instruction(
        server_round=1,
        round_id=digest(arrays),
        fingerprint=model.fingerprint,
        parameters=model.parameters,
        measured=model.parameters[:1],
        hyperparameters=memit.to_json(),
        contexts=ContextTemplates().to_json(),
    )
    content = RecordDict(
        {ARRAYS: arrays, CONFIG: ConfigRecord(instruction.to_config())}
    )
    message = Message(content, dst_node_id=7, message_type="train")
    message.metadata.__dict__["_message_id"] = "1"

    reply = app(message, context(node_config))

    found = reply.content.array_records[ARRAYS]
    name = model.parameters[0]
    assert list(found) == [f"{name}/key_factor", f"{name}/residual_factor"]
    assert found[f"{name}/key_factor"].shape == (640, 2)
    assert reply.content.metric_records[METRICS]["num-examples"] == 2
    repeated = {"sender": "node-7", **instruction.reply_config()}
    assert dict(reply.content.config_records[CONFIG]) == repeated


def test_an_unknown_key_is_refused_with_the_nearest(node_config):
    with pytest.raises(ConfigurationError, match=r"'edit-path'.*'edits-path'"):
        deployed_client(context({**node_config, "edit-path": "x"}))


def test_a_missing_key_says_how_to_give_it(node_config):
    del node_config["model"]

    with pytest.raises(ConfigurationError, match=r"no 'model'.*--node-config"):
        deployed_client(context(node_config))


def test_a_node_config_gives_key_texts_and_withdrawals(node_config, tmp_path):
    key = TagKey.generate()
    key.to_file(tmp_path / "key.txt")
    (tmp_path / "texts.txt").write_text("One text.\nAnother one.\n", encoding="utf-8")
    back = tmp_path / "back.json"
    back.write_text('{"2": {"1": [0]}}', encoding="utf-8")
    given = {
        "name": "hospital",
        "conflict-key": str(tmp_path / "key.txt"),
        "health-texts": str(tmp_path / "texts.txt"),
        "withdrawals-path": str(back),
    }

    client = deployed_client(context({**node_config, **given}))

    assert client.name == "hospital"
    assert client.declaring.tag_key == key
    assert client.declaring.withdrawals == {2: EditSet.of({1: [0]})}
    assert client.health.texts == ("One text.", "Another one.")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (1, "refuse")),
        ({"min-edits-per-upload": 8}, (8, "refuse")),
        ({"min-edits-per-upload": 8, "few-edits": "warn"}, (8, "warn")),
    ],
)
def test_a_node_config_bounds_what_is_uploaded(node_config, given, expected):
    client = deployed_client(context({**node_config, **given}))

    for part in (client.shared, client.personal):
        assert (part.guard.min_edits, part.guard.few_edits) == expected


def test_a_damaged_file_of_withdrawals_is_named(node_config, tmp_path):
    back = tmp_path / "back.json"
    back.write_text('{"2": [0]}', encoding="utf-8")

    with pytest.raises(ConfigurationError, match=r"withdrawals.*back\.json"):
        deployed_client(context({**node_config, "withdrawals-path": str(back)}))


def test_a_node_config_may_ask_for_chats(node_config, tmp_path):
    lm = pico_language_model("gpt2")
    lm.tokenizer.chat_template = "Q: {{ messages[0]['content'] }}\nA:"
    lm.model.save_pretrained(tmp_path / "model")
    lm.tokenizer.save_pretrained(tmp_path / "model")
    given = {"model": str(tmp_path / "model"), "chat-template": True}

    client = deployed_client(context({**node_config, **given}))

    plain = deployed_client(context(node_config))
    pairs = zip(chain(*client.edits.rounds), chain(*plain.edits.rounds), strict=True)
    for chat, case in pairs:
        assert chat.request.prompt == f"Q: {case.request.prompt}\nA:"


def test_a_revision_reaches_the_loading(node_config):
    with pytest.raises(ConfigurationError, match=r"'v2'.*'embedded'"):
        deployed_client(context({**node_config, "revision": "v2"}))


def test_a_party_that_joins_later_has_nothing_before(node_config):
    client = deployed_client(context({**node_config, "first-round": 3}))

    rounds = [[c.request.subject for c in cases] for cases in client.edits.rounds]
    assert rounds == [[], [], ["France", "Japan"], ["Spain"]]


def test_appended_edits_leave_full_rounds_as_they_were():
    before, after = rounds_of([1, 2, 3, 4], 2), rounds_of([1, 2, 3, 4, 5], 2)

    assert after == [*before, [5]]
    assert rounds_of([1, 2, 3], 0) == [[1, 2, 3]]
    assert rounds_of([], 0) == []


@pytest.mark.parametrize(("size", "first"), [(-1, 1), (0, 0)])
def test_a_round_before_the_first_is_refused(size, first):
    with pytest.raises(ConfigurationError, match=f"found {size} and {first}"):
        rounds_of([], size, first)
