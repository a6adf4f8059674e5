"""The format on the wire is pinned: keys, shapes, dtypes, bytes."""

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.errors import PayloadError
from flwr_collabedit.messages.contributions import as_statistics
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.payloads import (
    array_keys,
    digest,
    pack_deltas,
    pack_statistics,
    read_deltas,
    record_bytes,
    to_record,
    unpack_statistics,
)

KEYS = torch.tensor([[1.0, 2.0], [0.0, 2.0], [3.0, 1.0]], dtype=torch.float64)
RESIDUALS = torch.tensor([[1.0, -1.0], [0.5, 2.0]], dtype=torch.float64)
SHAPE = (2, 3)  # (d_value, d_key)
INSTRUCTION = Instruction(
    server_round=2,
    round_id="abc",
    fingerprint="f" * 64,
    parameters=("a.weight", "b.weight"),
    measured=("b.weight",),
    hyperparameters="{}",
    contexts="[]",
)


def test_keys_of_a_reply_are_pinned():
    assert array_keys(["a.weight", "b.weight"], "factors") == [
        "a.weight/key_factor",
        "a.weight/residual_factor",
        "b.weight/key_factor",
        "b.weight/residual_factor",
    ]
    assert array_keys(["a.weight"], "dense") == ["a.weight/gram", "a.weight/cross"]
    assert array_keys(["a.weight"], "delta") == ["a.weight/delta"]
    assert array_keys(["a.weight"], "mkv") == [
        *("mkv_z", "mkv_delta", "mkv_steps", "a.weight/mkv_key")
    ]
    assert array_keys([], "mkv") == []


def test_an_instruction_is_pinned_and_survives_a_config_record():
    config = INSTRUCTION.to_config()

    assert config == {
        "schema-version": 1,
        "server-round": 2,
        "round-id": "abc",
        "fingerprint": "f" * 64,
        "parameters": "a.weight\nb.weight",
        "measured": "b.weight",
        "layer-schedule": "synchronous",
        "residual-split": "remaining",
        "form": "factors",
        "wire-dtype": "float32",
        "hyperparameters": "{}",
        "contexts": "[]",
        "phase": "edit",
        "measured-on": "current",
        "inactive": "",
        "augmented": "",
        "withdrawn": "",
        "presence": "",
        "tagged": False,
        "personal": "",
        "secure": "",
    }
    record = ConfigRecord({**config, "a-users-own": 3})
    assert Instruction.from_config(record) == INSTRUCTION


def test_an_instruction_with_a_wrong_field_is_refused_by_name():
    config = {**INSTRUCTION.to_config(), "form": "sparse"}

    with pytest.raises(PayloadError, match=r"form.*'sparse'"):
        Instruction.from_config(config)


def test_dense_sends_the_triangle_row_by_row():
    gram, cross = pack_statistics(KEYS, RESIDUALS, "dense", "float32")

    # K K^T = [[5, 4, 5], [4, 4, 2], [5, 2, 10]]; R K^T = [[-1, -2, 2], [4.5, 4, 3.5]]
    assert gram.tolist() == [5, 4, 4, 5, 2, 10]
    assert cross.tolist() == [[-1, -2, 2], [4.5, 4, 3.5]]
    assert gram.dtype == cross.dtype == np.float32


def test_factors_send_as_many_columns_as_the_keys_have_rank():
    twice = torch.cat([KEYS[:, :1], KEYS[:, :1]], dim=1)

    key_factor, residual_factor = pack_statistics(
        twice, RESIDUALS, "factors", "float64"
    )

    assert key_factor.shape == (3, 1)
    assert residual_factor.shape == (2, 1)
    assert key_factor.dtype == np.float64


@pytest.mark.parametrize("form", ["factors", "dense"])
def test_both_forms_carry_the_same_statistics(form):
    expected = EditStatistics.from_pairs(KEYS, RESIDUALS)

    parts = pack_statistics(KEYS, RESIDUALS, form, "float64")
    found = as_statistics(unpack_statistics(parts, form, SHAPE, num_edits=2))

    torch.testing.assert_close(found.gram, expected.gram, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(found.cross, expected.cross, rtol=1e-13, atol=1e-13)
    assert found.num_edits == 2


def test_deltas_survive_the_trip_and_are_checked_against_the_model():
    model = EditedModel("f", {"a.weight": (2, 3)})
    deltas = {"a.weight": torch.arange(6, dtype=torch.float64).reshape(2, 3) / 7}

    record = pack_deltas(deltas, "float64")

    assert list(record) == ["a.weight/delta"]
    assert torch.equal(read_deltas(record, model)["a.weight"], deltas["a.weight"])
    with pytest.raises(PayloadError, match="same edited layers"):
        read_deltas(record, EditedModel("f", {"b.weight": (2, 3)}))


def test_bytes_are_numbers_plus_numpys_header():
    record = to_record(["a"], [np.zeros((10, 3), np.float32)])

    assert record_bytes(record) == 128 + 10 * 3 * 4


def test_digest_sees_keys_values_and_dtype():
    base = to_record(["a"], [np.ones(3)])

    others = [
        to_record(["b"], [np.ones(3)]),
        to_record(["a"], [np.zeros(3)]),
        to_record(["a"], [np.ones(3, np.float32)]),
        ArrayRecord(),
    ]
    assert digest(base) == digest(to_record(["a"], [np.ones(3)]))
    assert len({digest(base), *map(digest, others)}) == 5
