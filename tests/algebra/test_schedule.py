import math

import pytest

from flwr_collabedit.algebra.schedule import (
    check_schedule,
    check_sweeps,
    residual_share,
)
from flwr_collabedit.editor_names import editor_of
from flwr_collabedit.errors import ConfigurationError


@pytest.mark.parametrize(
    ("split", "shares"),
    [
        ("remaining", [1 / 4, 1 / 3, 1 / 2, 1]),
        ("square-root", [1 / 2, 1 / math.sqrt(3), 1 / math.sqrt(2), 1]),
        ("uniform", [1 / 4, 1 / 4, 1 / 4, 1 / 4]),
    ],
)
def test_shares_of_four_layers(split, shares):
    found = [residual_share(index, 4, split) for index in range(4)]

    assert found == pytest.approx(shares, abs=1e-15)


@pytest.mark.parametrize(
    ("editor", "schedule", "split"),
    [
        ("memit", "synchronous", "remaining"),
        ("memit", "local", "remaining"),
        ("memit", "frozen", "uniform"),
        ("pmet", "synchronous", "square-root"),
        ("pmet", "local", "square-root"),
        ("pmet", "frozen", "uniform"),
        ("alphaedit", "synchronous", "remaining"),
        ("alphaedit", "local", "remaining"),
        ("alphaedit", "frozen", "uniform"),
    ],
)
def test_each_editor_has_a_split_of_its_own_for_each_schedule(editor, schedule, split):
    assert check_schedule(schedule, None, editor) == (schedule, split)


@pytest.mark.parametrize("editor", ["memit", "pmet"])
@pytest.mark.parametrize("split", ["remaining", "square-root"])
def test_either_editor_takes_the_others_split(editor, split):
    assert check_schedule("synchronous", split, editor) == ("synchronous", split)


@pytest.mark.parametrize("editor", ["memit", "pmet"])
def test_equal_shares_of_a_residual_measured_again_are_refused(editor):
    with pytest.raises(ConfigurationError, match="'remaining' or 'square-root'"):
        check_schedule("synchronous", "uniform", editor)


@pytest.mark.parametrize("split", ["remaining", "square-root"])
def test_only_shares_that_overshoot_are_not_swept(split):
    with pytest.raises(ConfigurationError, match=f"'{split}'.*diverge.*'uniform'"):
        check_sweeps("frozen", split, 2, 0.0)

    check_sweeps("frozen", split, 1, 0.0)
    check_sweeps("synchronous", split, 2, 0.0)
    check_sweeps("frozen", "uniform", 2, 0.0)


def test_the_editor_is_read_from_the_hyperparameters():
    assert editor_of("{}") == "memit"
    assert editor_of('{"editor": "pmet"}') == "pmet"
    with pytest.raises(ConfigurationError, match=r"'pmett'.*'pmet'"):
        editor_of('{"editor": "pmett"}')
