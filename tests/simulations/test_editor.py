"""The setting ``editor`` reaches the clients, the server and the pooled reference."""

import json

import pytest
from flwr.app import Context, RecordDict

from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.pmet_config import PmetConfig
from flwr_collabedit.errors import ConfigurationError
from simulations.experiment import editor_config
from simulations.in_process import InProcessGrid, run_in_process
from simulations.settings import ExperimentSettings


def settings(**options):
    return ExperimentSettings.from_run_config(
        {name.replace("_", "-"): value for name, value in options.items()}
    )


def test_the_embedded_models_two_editors_change_the_same_layers():
    memit, pmet = (editor_config(settings(editor=name)) for name in ("memit", "pmet"))

    assert type(memit) is MemitConfig
    assert type(pmet) is PmetConfig
    assert pmet.layers == memit.layers
    assert (pmet.clamp_norm_factor, pmet.second_moment_weight) == (3.0, 10.0)
    changed = {"clamp_norm_factor", "second_moment_weight", "editor"}
    left = memit.model_dump(exclude=changed)
    assert pmet.model_dump(include=set(left)) == left


def test_settings_override_pmets_hyperparameters_too():
    found = editor_config(settings(editor="pmet", second_moment_weight=7.0))

    assert found.second_moment_weight == 7.0


def test_editor_options_replace_hyperparameters():
    options = {"editor": "rome", "strategy": "edit-avg"}
    text = "consistent_keys = true, layers = [1]"

    published = editor_config(settings(**options))
    found = editor_config(settings(**options, editor_options=text))

    assert (published.consistent_keys, published.layers) == (False, (0,))
    assert (found.consistent_keys, found.layers) == (True, (1,))
    assert found.clamp_norm_factor == published.clamp_norm_factor


@pytest.mark.parametrize(
    ("options", "text"),
    [("consistent_key = true", "consistent_key"), ("layers = [9]", "9")],
)
def test_wrong_editor_options_are_refused_by_name(options, text):
    wanted = settings(editor="rome", strategy="edit-avg", editor_options=options)

    with pytest.raises(ConfigurationError, match=text):
        editor_config(wanted)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"editor": "roma"}, "editor = 'roma'"),
        ({"editor": "rome"}, "CollabEdit cannot merge edits of ROME"),
        ({"editor": "grace", "strategy": "ties"}, "which changes no weight"),
        ({"editor": "alphaedit", "strategy": "fed-edit"}, "no mediator vectors"),
        ({"strategy": "local-only", "layer_schedule": "frozen"}, "as its editor does"),
        ({"strategy": "local-only", "presence": "answer"}, "no two clients' edits"),
        ({"strategy": "local-only", "resume": True}, "models of clients' own"),
        ({"editor": "malmen"}, "collabedit train-editor"),
        ({"hypernetwork": "/a"}, "not read with editor = 'memit'"),
        ({"editor": "alphaedit", "second_moment_weight": 2.0}, "not read with editor"),
        ({"editor": "ft", "strategy": "ties", "sweeps": 2}, "sweeps"),
        (
            {"editor": "malmen", "hypernetwork": "/a", "sweeps": 2},
            "what each layer is to write once",
        ),
        (
            {"editor": "malmen", "hypernetwork": "/a", "layer_schedule": "synchronous"},
            "by itself",
        ),
        ({"editor": "ft", "strategy": "ties", "presence": "residual"}, "keeps none"),
        ({"editor": "pmet", "residual_split": "uniform"}, "'square-root'"),
        (
            {
                "editor": "pmet",
                "layer_schedule": "frozen",
                "residual_split": "square-root",
                "sweeps": 2,
            },
            "diverge",
        ),
    ],
)
def test_editors_and_splits_that_do_not_go_together_are_refused(options, text):
    with pytest.raises(ConfigurationError, match=text):
        settings(**options)


def test_a_pmet_simulation_equals_its_pooled_reference(tmp_path):
    from simulations.client_app import app as client_app
    from simulations.server_app import app

    config = ExperimentSettings(
        output_folder=str(tmp_path),
        editor="pmet",
        dtype="float64",
        wire_dtype="float64",
        num_clients=2,
        num_rounds=1,
        num_edits=6,
        second_moment_samples=200,
        evaluate_before=False,
    ).to_run_config()

    run_in_process(app, client_app, 2, config)

    summary = json.loads((tmp_path / "summary.json").read_text())
    assert max(summary["gap_to_pooled"].values()) < 1e-9


def test_a_wrong_layer_of_pmet_is_refused_before_anything_is_written(tmp_path):
    from simulations.server_app import app

    published = tmp_path / "edit.json"
    published.write_text('{"layers": [0, 99], "nll_loss_factor": 1}')
    wrong = settings(
        editor="pmet",
        hyperparameters=str(published),
        output_folder=str(tmp_path / "run"),
        num_clients=2,
    )
    context = Context(1, 1, {}, RecordDict(), wrong.to_run_config())

    with pytest.raises(ConfigurationError, match="99"):
        app(InProcessGrid(app, 2), context)

    assert not (tmp_path / "run").exists()
