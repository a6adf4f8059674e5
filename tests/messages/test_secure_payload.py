"""Statistics as integers: the sum they give, its bound, and what is refused."""

import numpy as np
import pytest
import torch

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.fixed_point import key_exponents, rounding_bound
from flwr_collabedit.errors import PayloadError
from flwr_collabedit.messages.secure_payload import SecureTask, pack_secure, unpack_sum

D_KEY, D_VALUE, CLIENTS = 7, 4, 3
SHAPES = {"low": (D_VALUE, D_KEY), "high": (D_VALUE, D_KEY)}


def random(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def second_moment() -> torch.Tensor:
    """Return a second moment whose coordinates differ by orders of magnitude."""
    scales = torch.logspace(-4, 3, D_KEY, dtype=torch.float64)
    keys = scales[:, None] * random(D_KEY, 50, seed=1)
    return keys @ keys.T / 50


C = second_moment()


def task(**fields) -> SecureTask:
    given = {
        "num_limbs": 2,
        "limb_bits": 29,
        "gram_exponent": 8,
        "cross_exponent": 6,
        "key_exponents": dict.fromkeys(SHAPES, tuple(key_exponents(C.diagonal()))),
    }
    return SecureTask(**{**given, **fields})


def pairs(client: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    scale = C.diagonal().sqrt()[:, None]
    return {
        name: (
            scale * random(D_KEY, 2, seed=10 * client + i),
            random(D_VALUE, 2, seed=100 + 10 * client + i),
        )
        for i, name in enumerate(SHAPES)
    }


def mean(asked: SecureTask, clients=range(CLIENTS)) -> list[np.ndarray]:
    sent = [
        [a for n in SHAPES for a in pack_secure(*pairs(c)[n], asked, n)]
        for c in clients
    ]
    return [sum(column) / len(sent) for column in zip(*sent, strict=True)]


@pytest.mark.parametrize("num_limbs", [1, 2, 3])
def test_the_sum_is_within_the_stated_bound(num_limbs):
    asked = task(num_limbs=num_limbs)

    found = unpack_sum(mean(asked), asked, SHAPES, CLIENTS, 6)

    bound = rounding_bound(CLIENTS, num_limbs, 29)
    rounding = 2.0**-52  # of the float64 sum that this compares with
    exponents = key_exponents(C.diagonal())
    scale = torch.tensor([2.0**e for e in exponents], dtype=torch.float64)
    for name, total in found.items():
        expected = EditStatistics.zero(D_VALUE, D_KEY)
        for client in range(CLIENTS):
            expected += EditStatistics.from_pairs(*pairs(client)[name])
        gram = (total.gram.total - expected.gram) / scale[:, None] / scale
        cross = (total.cross.total - expected.cross) / scale
        assert gram.abs().max() <= 2.0**8 * bound + 100 * rounding
        assert cross.abs().max() <= 2.0**6 * bound + 100 * rounding
        if num_limbs == 1:  # the bound is no better than it has to be
            assert gram.abs().max() > 2.0**8 * bound / 100
        assert total.num_edits == 6


@pytest.mark.parametrize("part", ["gram", "cross"])
def test_an_entry_that_would_be_clipped_names_weight_part_and_option(part):
    asked = task(**{f"{part}_exponent": -30})

    with pytest.raises(PayloadError, match=rf"low, {part}.*clipped.*{part}_exponent"):
        pack_secure(*pairs(0)["low"], asked, "low")


def test_what_protocol_and_limbs_allow_is_the_same():
    asked = task()

    largest = max(abs(array).max() for array in mean(asked, [0]))
    assert largest <= asked.clipping_range == 2.0**28
    # One step an integer: quantisation rounds nothing.
    assert asked.quantization_range == 2 * asked.clipping_range


def test_fractions_in_a_sum_are_refused():
    arrays = mean(task())
    arrays[1] = arrays[1] + 0.1

    with pytest.raises(PayloadError, match="sum of integers"):
        unpack_sum(arrays, task(), SHAPES, CLIENTS, 6)


def test_a_sum_that_is_no_gram_is_refused():
    arrays = mean(task())
    arrays[0] = -arrays[0]

    with pytest.raises(PayloadError, match=r"low.*semidefinite"):
        unpack_sum(arrays, task(), SHAPES, CLIENTS, 6)


def test_values_that_are_not_finite_are_refused():
    arrays = mean(task())
    arrays[0][0] = np.nan

    with pytest.raises(PayloadError, match="sum of integers"):
        unpack_sum(arrays, task(), SHAPES, CLIENTS, 6)


def test_another_number_or_shape_of_arrays_is_refused():
    arrays = mean(task())

    with pytest.raises(PayloadError, match="Expected 8 arrays, found 7"):
        unpack_sum(arrays[:-1], task(), SHAPES, CLIENTS, 6)
    with pytest.raises(PayloadError, match="shape"):
        unpack_sum([arrays[2], *arrays[1:]], task(), SHAPES, CLIENTS, 6)


def test_clients_without_edits_give_the_zero_sum():
    nothing = random(D_KEY, 0, seed=0), random(D_VALUE, 0, seed=0)
    sent = [a for n in SHAPES for a in pack_secure(*nothing, task(), n)]

    found = unpack_sum(sent, task(), SHAPES, CLIENTS, 0)

    assert not any(t.gram.total.any() or t.cross.total.any() for t in found.values())


def test_a_task_travels_as_text_and_others_are_refused():
    assert SecureTask.from_json(task().model_dump_json()) == task()
    with pytest.raises(PayloadError, match="num_limbs"):
        SecureTask.from_json('{"num_limbs": 0}')
