"""The trained attacker: canonical features, names, and what it learns of one edit."""

import pytest
import torch

from flwr_collabedit.algebra.factors import seal
from flwr_collabedit.models.loading import load_language_model
from flwr_collabedit.privacy.inverter import (
    name_tokens,
    scaled_eigenvectors,
    train_inverter,
)
from flwr_collabedit.privacy.recovery import Found
from flwr_collabedit.privacy.span_attack import gram_factor
from flwr_collabedit.privacy.subject_keys import SubjectKeys

NUM_FIRST, NUM_LAST, D_KEY = 6, 8, 20


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture(scope="module")
def named():
    """Names of two parts; a key is the sum of theirs, in two wordings."""
    tokens = torch.tensor(
        [[a, NUM_FIRST + b] for a in range(NUM_FIRST) for b in range(NUM_LAST)]
    )
    parts = 2 * normal(D_KEY, NUM_FIRST + NUM_LAST)
    keys = parts[:, tokens].sum(dim=2)[:, :, None].repeat(1, 1, 2)
    subjects = tuple(f"{a} {b}" for a, b in tokens.tolist())
    return SubjectKeys(subjects, keys), tokens


def test_scaled_eigenvectors_are_those_of_the_gram():
    keys = normal(D_KEY, 4)

    found = scaled_eigenvectors(keys, 6)

    values, vectors = torch.linalg.eigh(keys @ keys.T)
    expected = (vectors[:, -4:] * values[-4:].sqrt()).T.flip(0)
    torch.testing.assert_close(found[:4].abs(), expected.abs())
    torch.testing.assert_close(found.T @ found, keys @ keys.T)
    assert (found[:4].abs().argmax(1) == found[:4].argmax(1)).all()
    assert not found[4:].any()


def test_features_are_the_same_of_keys_gram_and_sealed_factors():
    keys = normal(D_KEY, 5)
    sealed = seal(keys, normal(3, 5, seed=1)).key_factor

    expected = scaled_eigenvectors(keys, 5)

    torch.testing.assert_close(scaled_eigenvectors(sealed, 5), expected)
    of_gram = scaled_eigenvectors(gram_factor(keys @ keys.T), 5)
    torch.testing.assert_close(of_gram, expected)
    turned = scaled_eigenvectors(-keys[:, [4, 2, 0, 1, 3]], 5)
    torch.testing.assert_close(turned, expected)


def test_a_batch_has_the_features_of_its_uploads():
    keys = normal(3, D_KEY, 4)

    found = scaled_eigenvectors(keys, 2)

    for one, each in zip(found, keys, strict=True):
        torch.testing.assert_close(one, scaled_eigenvectors(each, 2))


def test_names_it_was_not_trained_on_are_read_from_one_edit(named):
    keys, tokens = named
    order = torch.randperm(48, generator=torch.Generator().manual_seed(1))
    held_out, trained = order[:8], order[8:]

    inverter = train_inverter(keys, tokens, trained, 1, steps=120)

    found = [
        Found.of(inverter.scores(keys.keys[:, [i], 0].float()), [i])
        for i in held_out.tolist()
    ]
    assert sum(one.top_5 for one in found) >= 6  # chance is 0.8 of 8
    again = train_inverter(keys, tokens, trained, 1, steps=120)
    probe = keys.keys[:, [0], 0].float()
    assert torch.equal(again.scores(probe), inverter.scores(probe))


def test_scores_are_log_probabilities_of_the_names(named):
    keys, tokens = named
    inverter = train_inverter(keys, tokens, torch.arange(48), 2, steps=3)

    scores = inverter.scores(keys.keys[:, [3, 40], 0].float())

    found = inverter.log_probabilities(keys.keys[:, [3, 40], 0].float()[None])[0]
    assert scores[9] == found[0, tokens[9, 0]] + found[1, tokens[9, 1]]
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(2))


def test_training_leaves_torchs_random_state_alone(named):
    keys, tokens = named
    before = torch.random.get_rng_state()

    train_inverter(keys, tokens, torch.arange(48), 1, steps=2)

    assert torch.equal(torch.random.get_rng_state(), before)


def test_shorter_names_are_filled_up():
    lm = load_language_model("embedded")
    subjects = ["France", "United States", "Germany"]

    found = name_tokens(lm, subjects)

    rows = [lm.tokenizer(subject).input_ids for subject in subjects]
    filler = len({token for row in rows for token in row})
    assert found.shape == (3, max(map(len, rows)))
    lengths = (found != filler).sum(dim=1).tolist()
    assert lengths == list(map(len, rows))
    assert len({tuple(row) for row in found.tolist()}) == 3
