"""Counting what was found, on rankings written out by hand."""

import pytest
import torch

from flwr_collabedit.privacy.recovery import Found, Rate


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([2], (1, 1, 1, 1)),
        ([5], (0, 0, 1, 0)),
        ([0], (0, 0, 0, 0)),
        ([2, 5], (1, 0.5, 1, 0)),
        ([7, 2], (1, 1, 1, 1)),
        ([4, 0, 1], (0, 0, 2 / 3, 0)),
    ],
)
def test_what_a_ranking_finds(members, expected):
    # Best first: 2, 7, 6, 3, 5, then 8 to 17, then 4, 1, 0.
    order = [2, 7, 6, 3, 5, *range(8, 18), 4, 1, 0]
    scores = torch.empty(18)
    scores[torch.tensor(order)] = -torch.arange(18.0)
    if members == [4, 0, 1]:  # 15 guesses do not reach these
        scores[[4, 1]] = -9.5

    assert tuple(Found.of(scores, members)) == pytest.approx(expected)


def test_chance_is_what_random_rankings_find():
    generator = torch.Generator().manual_seed(0)
    drawn = [
        Found.of(torch.rand(20, generator=generator), [4, 11]) for _ in range(4000)
    ]

    means = torch.tensor(drawn).mean(dim=0)

    expected = torch.tensor(Found.by_chance(2, 20))
    torch.testing.assert_close(means, expected, atol=0.02, rtol=0)
    assert Found.by_chance(8, 20).top_5 == 1


@pytest.mark.parametrize(("hits", "count"), [(3, 10), (0, 10), (10, 10), (199, 200)])
def test_wilsons_interval_ends_where_the_normal_test_rejects(hits, count):
    rate = Rate.of([1.0] * hits + [0.0] * (count - hits))

    # The ends solve (p - p0)^2 = z^2 p0 (1 - p0) / n for p0.
    p, z = hits / count, 1.959964
    for end in (rate.low, rate.high):
        gap = (p - end) ** 2 - z**2 * end * (1 - end) / count
        assert gap == pytest.approx(0, abs=1e-12)
    assert rate.low < rate.high
    assert 0 <= rate.low <= rate.mean == pytest.approx(p)
    assert rate.high <= 1
