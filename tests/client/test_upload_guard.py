"""What a party does not allow is refused before anything is computed or leaves."""

import numpy as np
import pytest
import torch
from asking import MEMIT, instruction, zeros
from pico import pico_language_model

from flwr_collabedit.client import EditingClient
from flwr_collabedit.client.upload_guard import UploadGuard
from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.errors import ConfigurationError, PrivacyError
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.messages.personal_task import PersonalTask
from flwr_collabedit.messages.secure_payload import SecureTask
from flwr_collabedit.models.fingerprint import describe

GUARD = "flwr_collabedit.client.upload_guard"
OPTIMISE = "flwr_collabedit.client.round_targets.optimize_targets"
FACTS = [
    ("The capital of {} is", "France", "Rome"),
    ("{} speaks", "Angela Merkel", "Portuguese"),
    ("The continent of {} is", "Norway", "Asia"),
]


def requests(*subjects):
    return [
        EditRequest(case_id=i, prompt="{} is", subject=subject, target_new="Secretia")
        for i, subject in enumerate(subjects)
    ]


CASES = [
    EvaluationCase(
        request=EditRequest(case_id=i, prompt=p, subject=s, target_new=t),
        target_true="Paris",
    )
    for i, (p, s, t) in enumerate(FACTS)
]


@pytest.fixture(scope="module")
def lm():
    return pico_language_model("gpt2", dtype=torch.float64)


def client(lm, folder, cases=CASES, **options):
    return EditingClient(lm, [cases], name="c", state_folder=folder, **options)


@pytest.mark.parametrize(
    ("min_edits", "subjects", "passes"),
    [
        (1, ["Oslo"], True),
        (2, [], True),
        (2, ["Oslo"], False),
        (2, ["Oslo", "Rome"], True),
        (3, ["Oslo", "Rome"], False),
        # Edits of one subject have one key, or nearly: they hide nothing.
        (2, ["Oslo", "Oslo", " oslo"], False),
        (2, ["Oslo", "Oslo", "Rome"], True),
    ],
)
def test_edits_of_different_subjects_count(min_edits, subjects, passes):
    guard = UploadGuard(min_edits)

    if passes:
        guard.check_sum("c", requests(*subjects))
        return
    with pytest.raises(PrivacyError) as caught:
        guard.check_sum("c", requests(*subjects))
    found = len({subject.strip().lower() for subject in subjects})
    text = str(caught.value)
    assert f"at least {min_edits} edits" in text
    assert f"found {found}:" in text
    assert "min_edits_per_upload" in text
    assert not any(word in text for word in (*subjects, "Secretia", "is."))


@pytest.mark.parametrize(("min_edits", "passes"), [(1, True), (2, False)])
def test_vectors_one_by_one_never_mix(min_edits, passes):
    guard = UploadGuard(min_edits)

    guard.check_each("c", [])
    if passes:
        guard.check_each("c", requests("Oslo", "Rome"))
        return
    with pytest.raises(PrivacyError, match="found 1"):
        guard.check_each("c", requests("Oslo", "Rome"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"min_edits_per_upload": 0}, "at least 1, found 0"),
        ({"few_edits": "ignore"}, "'refuse' or 'warn', found 'ignore'"),
    ],
)
def test_wrong_bounds_are_refused(lm, tmp_path, options, text):
    with pytest.raises(ConfigurationError, match=text):
        client(lm, tmp_path, **options)


@pytest.mark.parametrize(
    "asked",
    [
        {"form": "factors"},
        {"form": "dense"},
        {"form": "delta", "layer_schedule": "frozen"},
        {"form": "factors", "layer_schedule": "local"},
        {"form": "dense", "inactive": EditSet.of({1: [0]}).to_json()},
        {"phase": "withdraw", "withdrawn": EditSet.of({1: [0, 2]}).to_json()},
    ],
    ids=["factors", "dense", "delta", "local", "inactive", "withdraw"],
)
def test_every_form_is_refused_before_anything_is_computed(
    lm, tmp_path, monkeypatch, asked
):
    def fail(*args, **options):
        raise AssertionError("optimised")

    monkeypatch.setattr(OPTIMISE, fail)
    few = {"inactive", "withdrawn"} & set(asked)
    subject = client(lm, tmp_path, min_edits_per_upload=3 if few else 4)
    config = instruction(lm, zeros(lm), **{"measured_on": "base", **asked})

    with pytest.raises(PrivacyError, match=f"found {2 if few else 3}"):
        subject.fit(zeros(lm), config)

    assert not list(tmp_path.iterdir())


def test_a_round_without_edits_and_one_with_enough_are_uploaded(lm, tmp_path):
    subject = client(lm, tmp_path, min_edits_per_upload=3)

    _, enough, _ = subject.fit(zeros(lm), instruction(lm, zeros(lm)))
    _, none, _ = subject.fit(zeros(lm), instruction(lm, zeros(lm), server_round=2))

    assert (enough, none) == (3, 0)


def test_a_masked_upload_shows_nothing_and_passes(lm, tmp_path):
    name, (_, d_key) = next(iter(describe(lm, MEMIT.layers).shapes.items()))
    task = SecureTask(
        num_limbs=2,
        limb_bits=29,
        gram_exponent=20,
        cross_exponent=20,
        key_exponents={name: (0,) * d_key},
    )
    asked = {"form": "dense", "secure": task.model_dump_json()}
    subject = client(lm, tmp_path, min_edits_per_upload=4)

    arrays, _, _ = subject.fit(zeros(lm), instruction(lm, zeros(lm), **asked))

    assert all(np.array_equal(array, np.rint(array)) for array in arrays)


def test_a_warning_stays_at_the_client_and_the_upload_is_the_same(
    lm, tmp_path, monkeypatch
):
    said = []
    monkeypatch.setattr(f"{GUARD}.log", lambda level, *args: said.append(args))
    config = instruction(lm, zeros(lm))
    plain = client(lm, tmp_path).fit(zeros(lm), config)
    assert not said

    warned = client(lm, tmp_path, min_edits_per_upload=4, few_edits="warn")
    arrays, num_edits, figures = warned.fit(zeros(lm), config)

    assert len(said) == 1
    assert "at least 4 edits" in said[0][1]
    assert num_edits == plain[1]
    assert all(map(np.array_equal, arrays, plain[0]))
    assert not any("expected" in str(value) for value in figures.values())


def test_fededits_vectors_are_refused_and_a_re_edit_is_not(lm, tmp_path):
    def asked(phase):
        task = PersonalTask(run_id="r", phase=phase).model_dump_json()
        return instruction(lm, zeros(lm), measured=(), form="mkv", personal=task)

    subject = client(lm, tmp_path, min_edits_per_upload=2, second_moments=lambda _: {})

    with pytest.raises(PrivacyError, match="never mix"):
        subject.fit([], asked("share"))
    # Nothing was shared, so that there is nothing to re-edit: asked for its model.
    with pytest.raises(ConfigurationError, match="asked to re-edit"):
        subject.fit([], asked("re-edit"))
