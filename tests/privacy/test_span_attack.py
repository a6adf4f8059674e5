"""The attack without training, on keys whose span is known."""

import pytest
import torch

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.factors import seal
from flwr_collabedit.privacy.span_attack import (
    gram_factor,
    residuals_of,
    span_scores,
)

D_KEY, NUM_SUBJECTS = 24, 60


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def candidates():
    return normal(D_KEY, NUM_SUBJECTS, 2)


def best(scores, count):
    return set(scores.topk(count).indices.tolist())


def test_the_gram_of_one_edit_is_its_key_up_to_the_sign():
    key = normal(D_KEY, 1)

    found = gram_factor((key @ key.T).float())

    assert found.shape == key.shape
    gap = min((found - key).norm(), (found + key).norm()) / key.norm()
    assert gap < 1e-6


def test_a_factor_gives_the_gram_back_and_knows_nothing_else():
    keys = normal(D_KEY, 5)
    turn = torch.linalg.qr(normal(5, 5, seed=1)).Q

    found = gram_factor(keys @ keys.T)

    torch.testing.assert_close(found @ found.T, keys @ keys.T)
    # The edits' order and every other rotation of them are gone.
    turned = keys @ turn
    torch.testing.assert_close(gram_factor(turned @ turned.T), found)


@pytest.mark.parametrize("count", [1, 4, 16, 23])
def test_edited_keys_are_found_below_full_rank(candidates, count):
    members = list(range(7, 7 + count))
    keys = candidates[:, members, 1]

    scores = span_scores(gram_factor((keys @ keys.T).float()), candidates)

    assert scores.shape == (NUM_SUBJECTS,)
    assert best(scores, count) == set(members)


def test_an_edited_key_scores_its_leverage_at_full_rank(candidates):
    keys = candidates[:, :40, 0]
    gram = keys @ keys.T

    found = span_scores(gram_factor(gram), candidates[:, :, :1])

    plain = candidates[:, :, 0]
    leverage = (plain * torch.linalg.solve(gram, plain)).sum(0)
    torch.testing.assert_close(found, -leverage)
    assert leverage[:40].max() < 1 < leverage[40:].median()


def test_a_key_beside_the_span_is_punished_by_its_distance():
    basis = torch.eye(D_KEY, dtype=torch.float64)
    near = basis[:, 0] + 0.1 * basis[:, 5]
    far = basis[:, 0] + basis[:, 5]
    candidates = torch.stack([far, near, basis[:, 1]], dim=1)[:, :, None]

    scores = span_scores(basis[:, :2], candidates)

    assert scores.argsort(descending=True).tolist() == [2, 1, 0]


def test_scores_of_sealed_factors_are_those_of_the_gram(candidates):
    keys = candidates[:, [3, 8, 21], 0]
    sealed = seal(keys, normal(4, 3, seed=2)).key_factor

    of_gram = span_scores(gram_factor(keys @ keys.T), candidates)

    torch.testing.assert_close(sealed, gram_factor(keys @ keys.T))
    torch.testing.assert_close(span_scores(sealed, candidates), of_gram)
    torch.testing.assert_close(span_scores(keys, candidates), of_gram)


def test_a_sum_over_clients_shows_all_members_and_not_whose(candidates):
    parts = [candidates[:, [1, 2], 0], candidates[:, [30, 31, 32], 1]]
    total = sum(part @ part.T for part in parts)
    other = candidates[:, [1, 30, 31], [0, 1, 1]], candidates[:, [2, 32], [0, 1]]

    assert best(span_scores(gram_factor(total), candidates), 5) == {1, 2, 30, 31, 32}
    torch.testing.assert_close(sum(part @ part.T for part in other), total)


def test_residuals_are_read_off_once_the_keys_are_known():
    keys, residuals = normal(D_KEY, 6), normal(4, 6, seed=3)
    statistics = EditStatistics.from_pairs(keys, residuals)

    found = residuals_of(statistics, keys[:, [4, 1]])

    torch.testing.assert_close(found, residuals[:, [4, 1]])


def test_a_solved_delta_shows_the_same_span(candidates):
    members = [5, 9, 33]
    keys, residuals = candidates[:, members, 0], normal(4, 3, seed=4)
    samples = normal(D_KEY, 200, seed=5)
    moment = samples @ samples.T  # public

    delta = residuals @ torch.linalg.solve(moment + keys @ keys.T, keys).T

    assert best(span_scores(moment @ delta.T, candidates), 3) == set(members)
