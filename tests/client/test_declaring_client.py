"""What a client declares: tags that show no fact, and how much of an edit is there."""

import numpy as np
import pytest
import torch
from asking import MEMIT, instruction, zeros
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.supercore.task_identity import TaskIdentity
from pico import pico_language_model

from flwr_collabedit.client import EditingClient
from flwr_collabedit.client_app import make_client_app
from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.editors.residuals import clamp_fractions, relative_residuals
from flwr_collabedit.editors.targets import optimize_targets
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.evaluation.presence import answers_already
from flwr_collabedit.fact_tags import TagKey
from flwr_collabedit.messages.declaration import DECLARATION, Declaration
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.messages.payloads import ARRAYS, CONFIG, array_keys, to_record
from flwr_collabedit.models.fingerprint import describe
from flwr_collabedit.models.weights import applied_deltas

KEY, OTHER_KEY = TagKey(bytes(range(32))), TagKey(bytes(range(1, 33)))
CONTEXTS = ContextTemplates()
# A stronger edit than the client's other tests need: some answers must change.
STRONG = MEMIT.model_copy(update={"num_gradient_steps": 20, "clamp_norm_factor": 4.0})


def case(number, prompt, subject, target):
    request = EditRequest(
        case_id=number, prompt=prompt, subject=subject, target_new=target
    )
    return EvaluationCase(request=request)


FACTS = [
    case(0, "The capital of {} is", "France", "Rome"),
    case(1, "{} speaks", "Angela Merkel", "Portuguese"),
    case(2, "The continent of {} is", "Norway", "Asia"),
]
# Fact 0 again, fact 1 with another target, and one that nobody else has.
THEIRS = [
    case(7, "{} speaks", "Angela Merkel", "Spanish"),
    case(8, "The capital of {} is", "France", "Rome"),
    case(9, "The capital of {} is", "Japan", "Rome"),
]


@pytest.fixture(scope="module")
def lm():
    return pico_language_model("gpt2", dtype=torch.float64)


def client(lm, folder, cases=FACTS, key=KEY, name="client-0", **options):
    return EditingClient(
        lm, [cases, cases[:1]], name=name, state_folder=folder, tag_key=key, **options
    )


def declared(subject, lm, arrays=None, **asked):
    arrays = zeros(lm) if arrays is None else arrays
    config = instruction(lm, arrays, phase="declare", measured=(), **asked)
    found, num_edits, figures = subject.fit(arrays, config)
    assert found == []
    said = Declaration.from_json(figures[DECLARATION])
    assert said.num_edits == num_edits
    return said


def test_equal_facts_of_two_clients_have_equal_tags_and_others_none(lm, tmp_path):
    ours = declared(client(lm, tmp_path), lm, tagged=True)
    theirs = declared(client(lm, tmp_path, THEIRS), lm, tagged=True)

    equal = [[a == b for b in theirs.fact_tags] for a in ours.fact_tags]
    assert equal == [[False, True, False], [True, False, False], [False] * 3]
    targets = [[a == b for b in theirs.target_tags] for a in ours.target_tags]
    # Rome is the capital of Japan too, which the server is not to see.
    assert targets == [[False, True, False], [False] * 3, [False] * 3]
    assert ours.key_check == theirs.key_check
    assert ours.presence == ()


def test_tags_of_another_key_have_nothing_in_common(lm, tmp_path):
    ours = declared(client(lm, tmp_path), lm, tagged=True)
    theirs = declared(client(lm, tmp_path, key=OTHER_KEY), lm, tagged=True)

    assert ours.key_check != theirs.key_check
    assert not {*ours.fact_tags, *ours.target_tags} & {
        *theirs.fact_tags,
        *theirs.target_tags,
    }


def test_tags_without_a_key_are_an_error_with_a_remedy(lm, tmp_path):
    with pytest.raises(ConfigurationError, match="Give EditingClient the tag_key"):
        declared(client(lm, tmp_path, key=None), lm, tagged=True)
    assert declared(client(lm, tmp_path, key=None), lm).fact_tags == ()


@pytest.mark.parametrize("presence", ["", "answer", "residual"])
def test_no_fact_is_in_the_bytes_of_a_declaration(lm, tmp_path, presence):
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    arrays, names = zeros(lm), describe(lm, MEMIT.layers).parameters
    asked = {"phase": "declare", "measured": (), "tagged": True, "presence": presence}
    content = RecordDict(
        {
            ARRAYS: to_record(array_keys(names, "delta"), arrays),
            CONFIG: ConfigRecord(instruction(lm, arrays, **asked)),
        }
    )
    message = Message(content, dst_node_id=7, message_type="train")
    message.metadata.__dict__["_message_id"] = "1"
    subject = client(lm, tmp_path, name="client-0")

    reply = make_client_app(lambda context: subject)(
        message, Context(1, 7, {}, RecordDict(), {})
    )

    sent = message_to_proto(reply).SerializeToString().lower()
    assert b"client-0" in sent
    assert declared(subject, lm, tagged=True).fact_tags[0].encode() in sent
    for one in FACTS:
        request = one.request
        for text in (request.subject, request.target_new, request.prompt):
            for word in text.replace("{}", " ").split():
                assert len(word) <= 2 or word.lower().encode() not in sent
    assert KEY.secret not in sent
    assert KEY.secret.hex().encode() not in sent


@pytest.fixture(scope="module")
def edited(lm):
    """Deltas with the first two facts written, as a server would send them."""
    shapes = describe(lm, MEMIT.layers).shapes
    light = {n: 1e-4 * torch.eye(d).double() for n, (_, d) in shapes.items()}
    editor = MemitEditor(lm, STRONG, CONTEXTS, light)
    found = editor.edit([one.request for one in FACTS[:2]]).deltas
    return found, [found[name].numpy() for name in shapes]


def requests():
    return [one.request for one in FACTS]


def answer(lm, text):
    """Return the next token of the model, as a target."""
    ids = torch.tensor([lm.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        return lm.tokenizer.decode(lm.model(ids).logits[0, -1].argmax()).strip()


def test_presence_by_answer_is_that_of_the_edited_model(lm, tmp_path):
    random = np.random.default_rng(0)
    arrays = [0.1 * random.standard_normal(array.shape) for array in zeros(lm)]
    names = describe(lm, MEMIT.layers).parameters
    deltas = {n: torch.from_numpy(a) for n, a in zip(names, arrays, strict=True)}
    prompts = ["The capital of {} is", "{} lives in", "{}, the", "I think that {}"]
    asked = [(p, s) for p in prompts for s in ("France", "Norway", "Rome", "Asia")]
    before = [answer(lm, prompt.format(subject)) for prompt, subject in asked]
    with applied_deltas(lm, deltas):
        after = [answer(lm, prompt.format(subject)) for prompt, subject in asked]
    # What each of the two models says, where they differ: by turns.
    cases = [
        case(i, *asked[i], (one, other)[i % 2])
        for i, (one, other) in enumerate(zip(before, after, strict=True))
        if one and other and one != other
    ]
    subject = client(lm, tmp_path, cases)

    base = declared(subject, lm, presence="answer").presence
    found = declared(subject, lm, arrays, presence="answer").presence

    requests = [one.request for one in cases]
    assert list(base) == list(map(float, answers_already(lm, requests)))
    with applied_deltas(lm, deltas):
        expected = answers_already(lm, requests)
    assert list(found) == list(map(float, expected))
    assert {(0, 1), (1, 0)} <= set(zip(base, found, strict=True))
    assert not list(tmp_path.iterdir())  # no target is optimised for it


def test_presence_by_residual_is_the_way_from_the_base_model(lm, tmp_path, edited):
    deltas, arrays = edited
    asked = {
        "presence": "residual",
        "measured_on": "base",
        "hyperparameters": STRONG.to_json(),
    }

    before = declared(client(lm, tmp_path), lm, **asked).presence
    after = declared(client(lm, tmp_path), lm, arrays, **asked).presence

    targets = optimize_targets(lm, requests(), STRONG, CONTEXTS)
    with applied_deltas(lm, deltas):
        left = relative_residuals(lm, requests(), targets, STRONG)
    assert after == pytest.approx((1 - left).clamp(0, 1).tolist(), abs=1e-6)
    assert before == pytest.approx((0, 0, 0), abs=1e-6)
    assert min(after[:2]) > 0.8
    assert after[2] < 0.5


def test_presence_by_residual_on_the_current_model_is_how_far_targets_go(
    lm, tmp_path, edited
):
    deltas, arrays = edited
    asked = {"presence": "residual", "hyperparameters": STRONG.to_json()}

    after = declared(client(lm, tmp_path), lm, arrays, **asked).presence

    with applied_deltas(lm, deltas):
        targets = optimize_targets(lm, requests(), STRONG, CONTEXTS)
    expected = 1 - clamp_fractions(targets, STRONG)
    assert after == pytest.approx(expected.tolist(), abs=1e-6)
    before = declared(client(lm, tmp_path), lm, **asked).presence
    assert all(np.array(after[:2]) > np.array(before[:2]))


def test_what_is_taken_back_is_declared_in_its_round(lm, tmp_path):
    back = EditSet.of({1: [0, 2]})
    subject = client(lm, tmp_path, withdrawals={2: back})

    assert declared(subject, lm).withdrawals == EditSet()
    assert declared(subject, lm, server_round=2).withdrawals == back
    assert declared(subject, lm, server_round=3).num_edits == 0
