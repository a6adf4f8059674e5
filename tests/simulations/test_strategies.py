"""Every setting of a strategy reaches it, and none is ignored in silence."""

import pytest
import torch

from flwr_collabedit.algebra.priors import RidgePrior
from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.messages.replies import ReplyLimits
from simulations.settings import ExperimentSettings
from simulations.strategies import make_strategy, pooled_options

MODEL = EditedModel(fingerprint="f", shapes={"a": (2, 3), "b": (2, 3)})
PRIORS = {name: RidgePrior(torch.eye(3), 7.0) for name in MODEL.shapes}


def settings(**config):
    kebab = {name.replace("_", "-"): value for name, value in config.items()}
    kebab.setdefault("output-folder", "/nowhere/run")
    return ExperimentSettings.from_run_config(kebab)


def made(**config):
    memit = MemitConfig(layers=(0, 1), second_moment_weight=7.0)
    return make_strategy(
        settings(**config),
        MODEL,
        memit,
        ContextTemplates(),
        lambda: PRIORS,
        lambda r: None,
    )


def test_collab_edit_gets_its_options():
    found = made(layer_schedule="frozen", sweeps=3, sweep_tolerance=0.1, form="dense")

    assert type(found).__name__ == "CollabEditStrategy"
    assert (found.layer_schedule, found.residual_split) == ("frozen", "uniform")
    assert (found.sweeps, found.sweep_tolerance, found.form) == (3, 0.1, "dense")
    assert found.priors == PRIORS


def test_an_exchange_waits_as_long_as_the_settings_say():
    assert made(exchange_timeout=7.0).options.exchange_timeout_s == 7.0
    assert made().options.exchange_timeout_s == 3600.0


@pytest.mark.parametrize(
    ("strategy", "name"),
    [
        ("edit-avg", "EditAvg"),
        ("simple-average", "SimpleAverage"),
        ("task-arithmetic", "TaskArithmetic"),
        ("ties", "TiesMerging"),
    ],
)
def test_merging_strategies_get_theirs(strategy, name):
    found = made(
        strategy=strategy,
        layer_schedule="frozen",
        residual_split="remaining",
        fraction_train=0.5,
        min_replies=2,
        seed=4,
        wire_dtype="float64",
    )

    assert type(found).__name__ == name
    assert (found.layer_schedule, found.residual_split) == ("frozen", "remaining")
    assert (
        found.options.fraction_train,
        found.options.min_replies,
        found.options.seed,
    ) == (0.5, 2, 4)
    assert found.options.wire_dtype == "float64"


def test_the_scale_is_the_methods_own_unless_it_is_set():
    arithmetic = {"strategy": "task-arithmetic", "layer_schedule": "local"}
    ties = {"strategy": "ties", "layer_schedule": "local"}

    assert made(**arithmetic).scale == 1.0
    assert made(**arithmetic, merge_scale=0.25).scale == 0.25
    assert (made(**ties).scale, made(**ties).density) == (1.0, 0.2)
    found = made(**ties, merge_scale=0.4, ties_density=0.5)
    assert (found.scale, found.density) == (0.4, 0.5)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (
            {"strategy": "ties", "layer_schedule": "synchronous"},
            "'ties'.*Set it to 'local' or 'frozen'",
        ),
        ({"strategy": "ties", "layer_schedule": "local", "sweeps": 2}, "local"),
        (
            {"strategy": "edit-avg", "layer_schedule": "frozen", "sweeps": 2},
            "'edit-avg' does not read sweeps = 2, only 'collabedit'",
        ),
        ({"merge_scale": 0.4}, "does not read merge-scale.*'task-arithmetic', 'ties'"),
        ({"ties_density": 0.4}, "does not read ties-density"),
        (
            {"layer_schedule": "frozen", "residual_split": "remaining", "sweeps": 2},
            "diverge",
        ),
        ({"layer_schedule": "local", "residual_split": "uniform"}, "'remaining'"),
        ({"strategy": "fed-avg"}, "strategy = 'fed-avg'"),
        ({"fraction_train": 0.0}, "fraction-train = 0.0"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(config, text):
    with pytest.raises(ConfigurationError, match=text):
        settings(**config)


def test_one_party_works_as_the_federation_does():
    swept = pooled_options(settings(layer_schedule="frozen", sweeps=3))
    local = pooled_options(settings(layer_schedule="local"))

    assert (swept["layer_schedule"], swept["sweeps"]) == ("frozen", 3)
    assert local["layer_schedule"] == "synchronous"


def test_bounds_on_replies_reach_the_strategy():
    bounded = made(size_factor=3.0, max_edits=100, max_norm=1e6)
    free = made(size_factor=0.0)

    assert bounded.options.size_factor == 3.0
    assert bounded.options.limits == ReplyLimits(1e6, 100)
    assert free.options.size_factor is None
    assert free.options.limits == ReplyLimits(None, None)
