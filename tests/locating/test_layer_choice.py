"""The rule on curves whose answer is plain, and on the embedded model."""

import pytest
from traces_by_hand import made_averages

from flwr_collabedit.data.known_facts import embedded_facts
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.locating.averages import TraceAverages
from flwr_collabedit.locating.causal_trace import trace_facts
from flwr_collabedit.locating.layer_choice import choose_layers
from flwr_collabedit.locating.trace_settings import TraceSettings
from flwr_collabedit.models.loading import load_language_model


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        ([0.4, 0.15, 0.05, 0.01, 0.0], (0, 1, 2)),
        ([0.0, 0.015, 0.3, 0.0, 0.3], (2,)),
        # The widest six of a hill: from 3, since 0.09 + ... is more than from 2.
        ([0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.25, 0.2, 0.09, 0.04], (3, 4, 5, 6, 7, 8)),
        ([0.1] * 10, (0, 1, 2, 3, 4, 5)),
    ],
    ids=["shallow", "hole", "hill", "level"],
)
def test_neighbours_of_the_largest_gap_are_chosen(gap, expected):
    assert choose_layers(made_averages(gap)) == expected


def test_the_share_is_of_the_largest_effect():
    gap = [0.1, 0.015, 0.01]

    assert choose_layers(made_averages(gap, effect=0.8)) == (0,)
    assert choose_layers(made_averages(gap, effect=0.7)) == (0, 1)


def test_fewer_layers_on_request():
    hill = made_averages([0.1, 0.2, 0.3, 0.25, 0.1])

    assert choose_layers(hill, most=2) == (2, 3)
    with pytest.raises(ConfigurationError, match="found 0"):
        choose_layers(hill, most=0)


@pytest.mark.parametrize("half_width", [None, 0.3])
def test_no_layer_is_chosen_where_no_gap_is_sure(half_width):
    assert choose_layers(made_averages([0.1, 0.2], half_width=half_width)) == ()


def test_the_embedded_model_has_the_layers_that_it_was_built_with():
    settings = TraceSettings(num_samples=3, last_only=True)
    traces = trace_facts(load_language_model("embedded"), embedded_facts(40), settings)

    averages = TraceAverages.of(traces)

    assert choose_layers(averages) == (0, 1, 2)
    # The noise makes it forget, and the state after layer 2 brings the answer back.
    assert averages.total.mean > 0.7
    assert averages.entering["nothing"][3].mean > 0.9 * averages.total.mean
