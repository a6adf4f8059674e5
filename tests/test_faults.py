import pytest
from faults import FAULTS, below_min_replies, killed_and_resumed, run


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_costs_valid_clients_nothing(fault):
    found = run(fault)

    assert found.lost == 0
    assert found.is_equal
    if fault.survivors[-1] == (0, 2, 3) and fault.grid != "gone":
        assert len(found.dropped) == 1


def test_too_few_valid_replies_end_the_run_loudly():
    assert "expected at least 4 valid replies, found 3" in below_min_replies()


def test_a_server_that_was_ended_goes_on_with_the_same_bits(tmp_path):
    assert killed_and_resumed(tmp_path)
