"""A client's part in rounds that go on: base model, withdrawals, targets, health."""

import json

import numpy as np
import pytest
import torch
from asking import MEMIT, instruction, zeros
from pico import pico_language_model
from safetensors.torch import load_file, save_file

from flwr_collabedit.client import EditingClient, target_store
from flwr_collabedit.client.edit_work import EditWork
from flwr_collabedit.client.health import HealthTexts
from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.kinds import EditorParts
from flwr_collabedit.editors.targets import optimize_targets
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.evaluation.evaluate import evaluate_cases
from flwr_collabedit.evaluation.metrics import MetricSums
from flwr_collabedit.evaluation.perplexity import text_loss
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.models.fingerprint import describe
from flwr_collabedit.models.weights import applied_deltas

FACTS = [
    ("The capital of {} is", "France", "Rome"),
    ("{} speaks", "Angela Merkel", "Portuguese"),
    ("The continent of {} is", "Norway", "Asia"),
    ("{} plays", "LeBron James", "sport"),
]
CASES = [
    EvaluationCase(
        request=EditRequest(case_id=i, prompt=p, subject=s, target_new=t),
        target_true="Paris",
    )
    for i, (p, s, t) in enumerate(FACTS)
]
TEXTS = HealthTexts(
    texts=("The capital of Germany is Berlin.",), prompts=("Japan is in",)
)
OPTIMISE = "flwr_collabedit.client.round_targets.optimize_targets"


@pytest.fixture(scope="module")
def lm():
    return pico_language_model("gpt2", dtype=torch.float64)


def client(lm, folder, rounds=(CASES[:3], CASES[3:]), **options):
    return EditingClient(lm, rounds, name="c", state_folder=folder, **options)


def moved(lm):
    # No constant, which a layer norm would take out again.
    random = np.random.default_rng(0)
    return [0.02 * random.standard_normal(array.shape) for array in zeros(lm)]


def places(**rounds):
    return EditSet.of({int(r[1:]): p for r, p in rounds.items()}).to_json()


def statistics(lm, config, cases):
    """Return what these cases alone give, measured on the base model."""
    asked, requests = Instruction.from_config(config), [c.request for c in cases]
    targets = optimize_targets(lm, requests, MEMIT, ContextTemplates())
    parts = EditorParts(ContextTemplates(), dict)
    work = EditWork(lm, MEMIT, asked, {}, parts)
    arrays, _ = work.with_targets(requests, targets.z)
    return arrays


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9)


def test_what_is_measured_on_the_base_model_leaves_the_deltas_out(lm, tmp_path):
    names = describe(lm, MEMIT.layers).parameters
    asked = {"measured": names, "form": "dense", "measured_on": "base"}
    # As a server of D4S sends it: the round's model is the base model.
    config = instruction(lm, zeros(lm), **asked)

    found, num_edits, _ = client(lm, tmp_path / "a").fit(moved(lm), config)

    assert num_edits == 3
    assert_close(found, statistics(lm, config, CASES[:3]))
    other = instruction(lm, moved(lm), **{**asked, "measured_on": "current"})
    current, _, _ = client(lm, tmp_path / "b").fit(moved(lm), other)
    gaps = [np.abs(a - b).max() for a, b in zip(current, found, strict=True)]
    assert max(gaps) > 1e-3


@pytest.mark.parametrize(
    ("withdrawn", "inactive", "expected"),
    [
        (places(r1=[1]), "", [1]),
        (places(r1=[2, 0]), "", [0, 2]),
        (places(r1=None), "", [0, 1, 2]),
        (places(r1=None), places(r1=[1]), [0, 2]),
        (places(r2=None), places(r1=None), [3]),
        (places(r1=[7]), "", []),
    ],
)
def test_a_withdrawal_gets_exactly_the_statistics_of_its_edits(
    lm, tmp_path, withdrawn, inactive, expected
):
    names = describe(lm, MEMIT.layers).parameters
    asked = {"measured": names, "form": "dense", "measured_on": "base"}
    earlier = client(lm, tmp_path)
    earlier.fit(moved(lm), instruction(lm, zeros(lm), **asked))
    back = {"phase": "withdraw", "withdrawn": withdrawn, "inactive": inactive}
    config = instruction(lm, zeros(lm), server_round=3, **back, **asked)

    found, num_edits, _ = client(lm, tmp_path).fit(moved(lm), config)

    assert num_edits == len(expected)
    assert_close(found, statistics(lm, config, [CASES[i] for i in expected]))


def test_inactive_edits_are_not_measured(lm, tmp_path):
    arrays = zeros(lm)
    config = instruction(lm, arrays, form="dense", inactive=places(r1=[1], r2=None))

    found, num_edits, _ = client(lm, tmp_path).fit(arrays, config)

    assert num_edits == 2
    assert_close(found, statistics(lm, config, [CASES[0], CASES[2]]))


def scored(subject, lm, arrays=None, **asked):
    arrays = zeros(lm) if arrays is None else arrays
    config = instruction(lm, arrays, measured=(), **asked)
    _, num_cases, figures = subject.evaluate(arrays, config)
    numbers = {k: v for k, v in figures.items() if k.endswith(("/sum", "/count"))}
    return num_cases, MetricSums.from_flat(numbers)


def test_inactive_edits_are_scored_apart(lm, tmp_path):
    asked = {"server_round": 2, "inactive": places(r1=[0, 1])}

    num_cases, found = scored(client(lm, tmp_path), lm, **asked)

    assert num_cases == 2
    for prefix, cases in (
        ("", CASES[2:]),
        ("round-1/", CASES[2:3]),
        ("round-2/", CASES[3:]),
        ("inactive/", CASES[:2]),
    ):
        expected = evaluate_cases(lm, cases).sums.totals["efficacy-success"]
        assert found.totals[f"{prefix}efficacy-success"] == pytest.approx(expected)


def test_without_deltas_the_health_is_the_base_models(lm, tmp_path):
    _, found = scored(client(lm, tmp_path, health=TEXTS), lm)

    plain = text_loss(lm, TEXTS.texts).totals["text-loss"]
    assert found.totals["base/text-loss"] == pytest.approx(plain)
    assert found.totals["text-loss"] == pytest.approx(plain)
    assert found.totals["kl-to-base"] == pytest.approx((0, 1), abs=1e-12)


def test_deltas_move_the_health_from_the_same_base(lm, tmp_path):
    names = describe(lm, MEMIT.layers).parameters
    arrays = moved(lm)
    deltas = {n: torch.from_numpy(a) for n, a in zip(names, arrays, strict=True)}

    _, found = scored(client(lm, tmp_path, health=TEXTS), lm, arrays)

    plain = text_loss(lm, TEXTS.texts).totals["text-loss"]
    with applied_deltas(lm, deltas):
        edited = text_loss(lm, TEXTS.texts).totals["text-loss"]
    assert found.totals["base/text-loss"] == pytest.approx(plain)
    assert found.totals["text-loss"] == pytest.approx(edited)
    assert abs(edited[0] - plain[0]) > 1e-3
    assert found.mean("kl-to-base") > 1e-5
    l1 = f"l1/{names[0]}"
    assert found.mean(l1) != pytest.approx(found.mean(f"base/{l1}"))


def test_a_client_without_texts_measures_weights_only(lm, tmp_path):
    _, found = scored(client(lm, tmp_path), lm)

    assert not {"text-loss", "kl-to-base"} & set(found.totals)
    assert any(name.startswith("base/l1/") for name in found.totals)


def test_targets_are_found_by_request_in_any_round_and_subset(
    lm, tmp_path, monkeypatch
):
    first = instruction(lm, zeros(lm), measured_on="base", form="dense")
    client(lm, tmp_path).fit(moved(lm), first)
    asked = []

    def counted(lm, requests, *args, **options):
        asked.append([request.case_id for request in requests])
        return optimize_targets(lm, requests, *args, **options)

    monkeypatch.setattr(OPTIMISE, counted)
    # Round 2 has edits of round 1 again, one new one between them.
    rounds = [CASES[:3], [CASES[2], CASES[3], CASES[0]]]
    later = client(lm, tmp_path, rounds)
    subset = instruction(
        lm, zeros(lm), measured_on="base", form="dense", inactive=places(r1=[1])
    )
    found, _, _ = later.fit(moved(lm), subset)
    assert asked == []
    assert_close(found, statistics(lm, subset, [CASES[0], CASES[2]]))

    second = instruction(
        lm, zeros(lm), measured_on="base", form="dense", server_round=2
    )
    found, _, _ = later.fit(moved(lm), second)
    assert asked == [[3]]
    assert_close(found, statistics(lm, second, rounds[1]))


def test_another_starting_model_has_targets_of_its_own(lm, tmp_path, monkeypatch):
    subject = client(lm, tmp_path)
    subject.fit(zeros(lm), instruction(lm, zeros(lm)))

    def fail(*args, **options):
        raise AssertionError("optimised")

    monkeypatch.setattr(OPTIMISE, fail)
    subject.fit(zeros(lm), instruction(lm, zeros(lm)))
    with pytest.raises(AssertionError, match="optimised"):
        subject.fit(moved(lm), instruction(lm, moved(lm)))


def shortened(path):
    path.write_bytes(path.read_bytes()[:-8])


def emptied(path):
    path.write_bytes(b"")


def without_names(path):
    save_file(load_file(path), path)


def torn_names(path):
    save_file(load_file(path), path, metadata={"requests": "[1"})


def too_few_rows(path):
    tensors = {name: tensor[:1].clone() for name, tensor in load_file(path).items()}
    with_names = path.read_bytes()
    header = json.loads(with_names[8 : 8 + int.from_bytes(with_names[:8], "little")])
    save_file(tensors, path, metadata=header["__metadata__"])


@pytest.mark.parametrize(
    "damage", [shortened, emptied, without_names, torn_names, too_few_rows]
)
def test_a_damaged_target_file_is_named_with_a_remedy(lm, tmp_path, damage):
    config = instruction(lm, zeros(lm))
    client(lm, tmp_path).fit(zeros(lm), config)
    (path,) = tmp_path.glob("targets-*.safetensors")
    damage(path)
    target_store._names_in.cache_clear()  # as another process, which has read none

    with pytest.raises(ConfigurationError, match=r"damaged file .*Delete it") as caught:
        client(lm, tmp_path).fit(zeros(lm), config)
    assert path.name in str(caught.value)

    path.unlink()
    client(lm, tmp_path).fit(zeros(lm), config)
