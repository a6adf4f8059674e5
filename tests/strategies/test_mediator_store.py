"""The server's store: bounded, in an order of its own, nobody shares twice."""

import pytest
import torch

from flwr_collabedit.errors import ConfigurationError, PayloadError
from flwr_collabedit.messages.mediator_payload import no_vectors
from flwr_collabedit.strategies.mediator_store import MediatorStore, joined

VECTORS = no_vectors({"w": (2, 3)})
ONE = type(VECTORS)(
    torch.ones(1, 2).double(),
    torch.ones(1, 2).double(),
    {"w": torch.ones(3, 1).double()},
    torch.ones(1).long(),
)


def names(store: MediatorStore, node: int) -> tuple[str, ...]:
    found = joined(store.others(node))
    return found[1] if found else ()


def test_a_client_is_offered_all_but_its_own_in_whatever_order_they_came():
    one, other = MediatorStore(), MediatorStore()
    for node in (1, 2, 3):
        one.add(1, node, f"client-{node}", ONE)
    for node in (3, 1, 2):
        other.add(1, node, f"client-{node}", ONE)

    assert names(one, 2) == names(other, 2) == ("client-1/1/0", "client-3/1/0")


def test_only_the_last_slots_are_kept():
    store = MediatorStore(num_slots=2)
    for slot in (1, 2, 3):
        store.add(slot, 1, "client-1", ONE)

    assert names(store, 9) == ("client-1/2/0", "client-1/3/0")


def test_above_the_bound_the_oldest_slot_goes_and_the_present_one_stays():
    store = MediatorStore(num_slots=9, max_vectors=2)
    for slot, node in ((1, 1), (1, 2), (2, 1), (2, 2), (2, 3)):
        store.add(slot, node, f"client-{node}", ONE)

    assert store.num_vectors == 3
    assert {entry.slot for entry in store.others(9)} == {2}


@pytest.mark.parametrize(
    ("slot", "node", "sender"), [(1, 1, "new"), (1, 2, "client-1"), (2, 3, "")]
)
def test_a_slot_that_repeats_and_a_reply_without_a_name_are_refused(slot, node, sender):
    store = MediatorStore()
    store.add(1, 1, "client-1", ONE)

    with pytest.raises(PayloadError):
        store.add(slot, node, sender, ONE)
    assert store.num_vectors == 1


@pytest.mark.parametrize(("slots", "vectors"), [(0, None), (1, 0)])
def test_a_store_must_hold_something(slots, vectors):
    with pytest.raises(ConfigurationError):
        MediatorStore(slots, vectors)
