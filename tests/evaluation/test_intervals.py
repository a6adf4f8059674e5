"""Intervals over seeds, against printed tables and hand computation."""

import pytest

from flwr_collabedit.evaluation.intervals import Estimate, t_quantile


@pytest.mark.parametrize(
    ("degrees", "printed"),
    [(1, 12.706), (2, 4.303), (4, 2.776), (11, 2.201), (30, 2.042), (120, 1.980)],
)
def test_quantiles_are_those_of_printed_tables(degrees, printed):
    assert t_quantile(degrees) == pytest.approx(printed, abs=6e-4)


def test_interval_of_three_seeds():
    # stdev of 70, 72, 77 is sqrt((9 + 1 + 16) / 2) = 3.6056; / sqrt(3) = 2.0817
    estimate = Estimate.of([70.0, 72.0, 77.0])

    assert estimate.mean == pytest.approx(73.0)
    assert estimate.half_width == pytest.approx(4.3027 * 2.0817, rel=1e-4)
    assert str(estimate) == "73.0 ± 9.0"


def test_one_value_has_no_interval():
    assert str(Estimate.of([73.04])) == "73.0"
