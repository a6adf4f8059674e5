"""The clients: each edits and scores its own facts, or its share of a simulation's."""

from functools import partial
from pathlib import Path

import torch
from flwr.app import Context
from transformers.utils.logging import disable_progress_bar

from flwr_collabedit.client import EditingClient
from flwr_collabedit.client_app import deployed_client, make_client_app
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.fact_tags import TagKey
from simulations.experiment import (
    clients_rounds,
    health_texts,
    language_model,
    second_moments,
    taken_back,
    text_quality,
)
from simulations.run_folder import RunFolder
from simulations.settings import ExperimentSettings


def client_fn(context: Context) -> EditingClient:
    """Return the client of this SuperNode, or of this partition of a simulation."""
    settings = ExperimentSettings.from_context(context)
    torch.set_num_threads(settings.threads_per_client)
    # One bar a process and message would drown the log.
    disable_progress_bar()  # type: ignore[no-untyped-call]
    if settings.is_deployment:
        return deployed_client(context)
    if "edits-path" in context.node_config:
        # Else it would edit and score what the server names.
        raise ConfigurationError(
            "This SuperNode has facts of its own, and the run is a simulation with "
            f"data = {settings.data!r}. Start it with data = 'nodes'."
        )
    index = int(context.node_config["partition-id"])
    name = f"client-{index}"
    folder = RunFolder(settings.folder)
    # Targets are stored under all that they depend on: runs may share them.
    shared = RunFolder(Path(settings.cache_folder or settings.folder))
    lm = language_model(settings)
    return EditingClient(
        lm,
        clients_rounds(settings)[index],
        name=name,
        state_folder=shared.client_state(name),
        results_folder=folder.cases,
        # From the cache, which the server has filled before the first round.
        second_moments=lambda memit: second_moments(settings, lm, memit),
        hypernetwork=Path(settings.hypernetwork) if settings.hypernetwork else None,
        personal_folder=folder.personal_state(name),
        known_case=partial(known_case, settings),
        withdrawals=taken_back(settings, index),
        tag_key=conflict_key(settings, folder),
        health=health_texts(settings),
        text_quality=text_quality(settings),
        secure_only=bool(settings.secure_limbs),
        min_edits_per_upload=settings.min_edits_per_upload,
        few_edits=settings.few_edits,
    )


def conflict_key(settings: ExperimentSettings, folder: RunFolder) -> TagKey | None:
    """Return the clients' key; the server of a real federation would not have it."""
    if not settings.conflict_policy:
        return None
    return TagKey.from_file(settings.conflict_key or folder.conflict_key)


def known_case(settings: ExperimentSettings, provenance: str) -> EvaluationCase:
    """Return the case behind a mediator vector: in a simulation all are at hand."""
    sender, slot, index = provenance.split("/")
    client = int(sender.removeprefix("client-"))
    return clients_rounds(settings)[client][int(slot) - 1][int(index)]


app = make_client_app(client_fn)
