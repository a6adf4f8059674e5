"""A simulation's result as an edit that `collabedit ask` and `export` read."""

from collections.abc import Mapping
from typing import Any

from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.editors.editor_config import EditorConfig
from flwr_collabedit.export.edit_folder import EditCard, package_versions
from simulations.run_folder import MAY_CHANGE
from simulations.settings import ExperimentSettings
from simulations.strategies import METHOD_NAMES

# Paths, which may tell what is private, and names that a card has fields for.
_LEFT_OUT = {
    *MAY_CHANGE,
    *("data", "hyperparameters", "hypernetwork", "second-moment-texts"),
    *("conflict-key", "withdraw"),
    *("model", "num-clients", "num-rounds", "num-edits", "revision"),
}


def edit_card(
    settings: ExperimentSettings,
    config: EditorConfig,
    model: EditedModel,
    scores: Mapping[str, Mapping[str, float]],
    num_edits: int,
) -> EditCard:
    """Return the card of a run's deltas.

    Parameters
    ----------
    settings, config, model
        Of the run.
    scores : mapping
        By method, as ``summary.json`` has them.
    num_edits : int
        Facts that are in the deltas.
    """
    told: dict[str, Any] = {
        name: value
        for name, value in settings.to_run_config().items()
        if name not in _LEFT_OUT
    }
    return EditCard(
        model=settings.model,
        revision=settings.revision,
        fingerprint=model.fingerprint,
        layers=config.layers,
        editor=config.to_json(),
        method=METHOD_NAMES[settings.strategy],
        num_edits=num_edits,
        num_clients=settings.num_clients,
        num_rounds=settings.num_rounds,
        settings=told,
        scores=scores,
        packages=package_versions(),
    )
