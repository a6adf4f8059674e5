"""When rounds are scored."""

import pytest

from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.strategies.round_options import RoundOptions


@pytest.mark.parametrize(
    ("every", "scored"),
    [
        (1, [0, 1, 2, 3, 4, 5]),
        (2, [0, 2, 4, 5]),
        (9, [0, 5]),
        ((1, 4), [0, 1, 4, 5]),
        ([4], [0, 4, 5]),
    ],
    ids=str,
)
def test_rounds_are_scored_when_they_are_due_and_in_the_end(every, scored):
    options = RoundOptions(evaluate_every=every)

    assert [r for r in range(6) if options.is_evaluated(r, 5)] == scored


def test_nothing_is_scored_without_evaluation():
    options = RoundOptions(evaluate=False, evaluate_every=(1, 5))

    assert not any(options.is_evaluated(r, 5) for r in range(6))


@pytest.mark.parametrize("every", [0, -1, (), (3, 0)], ids=str)
def test_rounds_that_do_not_exist_are_refused(every):
    with pytest.raises(ConfigurationError, match="evaluate_every of at least 1"):
        RoundOptions(evaluate_every=every)
