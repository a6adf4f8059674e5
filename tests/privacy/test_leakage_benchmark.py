"""The command behind the table and the plot of docs/privacy.md, on a small world."""

import json

import pytest
import torch

from benchmarks import leakage
from flwr_collabedit.privacy.recovery import Found
from flwr_collabedit.privacy.subject_keys import SubjectKeys

D_KEY, NUM_SUBJECTS = 32, 60


@pytest.fixture
def study(monkeypatch):
    monkeypatch.setattr(leakage, "EDITS", (1, 2))
    monkeypatch.setattr(leakage, "EDITS_SEALED", (2,))
    monkeypatch.setattr(leakage, "EDITS_IN_SUM", (1, 2))
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(D_KEY, NUM_SUBJECTS, 3, generator=generator).double()
    found = object.__new__(leakage.Study)
    found.keys = SubjectKeys(tuple(map(str, range(NUM_SUBJECTS))), keys)
    found.tokens = torch.arange(NUM_SUBJECTS)[:, None]
    found.steps, found.seed = 3, 0
    found.held_out = torch.arange(40, NUM_SUBJECTS)
    found.trained = torch.arange(40)
    return found


def test_every_form_has_its_rows_and_equal_matrices_equal_ones(study):
    rows = list(leakage.measure(study, 6))

    found = {(row.form, row.edits, row.attacker): row.found for row in rows}
    assert len(found) == len(rows) == 3 * (1 + 2 + 1) + 2 * 2
    for attacker in (leakage.SPAN, leakage.NETWORK):
        sealed = found[leakage.SEALED, 2, attacker]
        assert sealed == found[leakage.GRAM, 2, attacker]
        assert found[leakage.KEYS, 1, attacker] == found[leakage.GRAM, 1, attacker]
    for row in rows:
        if row.attacker == leakage.SPAN:
            assert row.rate("whole").mean == 1, row


def test_what_the_server_sees_has_the_gram_it_was_sent():
    keys = torch.randn(D_KEY, 16, generator=torch.Generator().manual_seed(3)).double()

    for see in (
        *(leakage.see_keys, leakage.see_gram),
        *(leakage.see_sealed, leakage.see_sum),
    ):
        factor = see(keys).double()
        gap = (factor @ factor.T - keys @ keys.T).norm() / (keys @ keys.T).norm()
        assert gap < 1e-6


def test_plot_and_rows_are_written(study, tmp_path):
    pytest.importorskip("matplotlib")
    rows = list(leakage.measure(study, 2))

    leakage.write(rows, NUM_SUBJECTS, tmp_path)

    assert (tmp_path / "leakage.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    records = json.loads((tmp_path / "leakage.json").read_text(encoding="utf-8"))
    assert len(records) == len(rows)
    assert records[0]["top_1"]["mean"] == rows[0].rate("top_1").mean
    chance = Found.by_chance(1, NUM_SUBJECTS)
    assert records[0]["chance"]["top_5"] == chance.top_5
