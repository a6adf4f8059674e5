"""Which settings go together: what a strategy would ignore in silence is refused."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flwr_collabedit.algebra.history import check_history
from flwr_collabedit.algebra.schedule import check_schedule, check_sweeps
from flwr_collabedit.editor_names import (
    Exchanged,
    check_exchanged,
    keeps_targets,
    needs_hypernetwork,
)
from flwr_collabedit.errors import ConfigurationError, shorten

if TYPE_CHECKING:
    from simulations.settings import ExperimentSettings

# Settings that some strategies read and others would ignore.
_READ_BY = {
    "sweeps": ("collabedit",),
    "sweep_tolerance": ("collabedit",),
    "form": ("collabedit",),
    "secure_limbs": ("collabedit",),
    "history": ("collabedit",),
    "beta_0": ("collabedit",),
    "beta_1": ("collabedit",),
    "withdraw": ("collabedit",),
    # FedEdit's vectors are never mixed: every client would refuse.
    "min_edits_per_upload": (
        *("collabedit", "edit-avg", "simple-average"),
        *("task-arithmetic", "ties"),
    ),
    "merge_scale": ("task-arithmetic", "ties"),
    "ties_density": ("ties",),
    "alpha": ("fed-edit",),
    "alpha_percentile": ("fed-edit",),
    "similarity": ("fed-edit",),
    "selection": ("fed-edit",),
    "targets_on": ("fed-edit",),
    "mkv_slots": ("fed-edit",),
    "max_mkvs": ("fed-edit",),
}
# Settings that are read only where another one has, or has not, some value.
_READ_WITH: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "sentence_model": ("partition", lambda value: value == "by-subject-cluster"),
    "context_starters": ("chat_template", lambda value: not value),
    "secure_limbs": ("form", lambda value: value == "dense"),
    "beta_0": ("history", lambda value: value == "dynamic-covariance"),
    "beta_1": ("history", lambda value: value == "dynamic-covariance"),
    "withdraw": ("history", lambda value: value == "d4s"),
    "hypernetwork": ("editor", needs_hypernetwork),
    "second_moment_weight": ("editor", lambda value: value in ("memit", "pmet")),
    "conflict_priority": ("conflict_policy", lambda value: value == "priority"),
    "conflict_key": ("conflict_policy", bool),
    "conflict_augment": (
        "conflict_policy",
        lambda value: value not in ("", "report"),
    ),
    "overlap": ("conflict_policy", bool),
    "conflict_later": ("conflict_share", bool),
    "reference_texts": ("generation_tokens", bool),
    "skip_present": ("presence", bool),
    "few_edits": ("min_edits_per_upload", lambda value: value > 1),
    "present_from": ("presence", bool),
}
# Every client has a model of its own: there is no global one, and no checkpoint of it.
OF_THEIR_OWN = ("fed-edit", "local-only")
NODES = "nodes"
"""The value of ``data`` where every party's SuperNode has facts of its own."""

# Settings of facts and of what a simulation compares: in a deployment nobody has all.
_OF_SIMULATIONS = (
    *("num_edits", "data_format", "zsre_target", "subjects"),
    *("partition", "dirichlet_alpha", "sentence_model", "shared_fraction"),
    *("repeat_rounds", "conflict_share", "conflict_later", "conflict_key"),
    *("health_texts", "health_samples", "generation_tokens", "reference_texts"),
    *("min_edits_per_upload", "few_edits"),
)


# What the strategies exchange that do not merge deltas.
_EXCHANGED: dict[str, Exchanged] = {
    "collabedit": "sums",
    "fed-edit": "vectors",
    "local-only": "nothing",
}


def kebab(name: str) -> str:
    """Return a field's name as the run configuration has it."""
    return name.replace("_", "-")


def check_combination(settings: "ExperimentSettings") -> None:
    """Check that the settings go together and that each one is read.

    Raises
    ------
    ConfigurationError
        Naming the setting, its value and who reads it.
    """
    check_exchanged(settings.editor, _EXCHANGED.get(settings.strategy, "deltas"))
    is_merging = settings.strategy not in _EXCHANGED
    own = "local" if is_merging and keeps_targets(settings.editor) else None
    schedule, split = check_schedule(
        settings.layer_schedule or own,
        settings.residual_split or None,
        settings.editor,
    )
    check_sweeps(schedule, split, settings.sweeps, settings.sweep_tolerance)
    _check_read(settings)
    if needs_hypernetwork(settings.editor) and not settings.hypernetwork:
        raise ConfigurationError(
            f"{settings.editor.upper()} edits with a network that was trained for it, "
            "found no hypernetwork. Train one with `collabedit train-editor` and give "
            "its absolute path."
        )
    if settings.presence == "residual" and not keeps_targets(settings.editor):
        raise ConfigurationError(
            f"presence = 'residual' compares targets, and {settings.editor.upper()} "
            "keeps none. Use 'answer'."
        )
    scored = settings.scored_rounds
    last = 0 if isinstance(scored, int) else max(scored)
    if last > settings.num_rounds:
        raise ConfigurationError(
            f"evaluate-every = {settings.evaluate_every!r} scores round {last}, and "
            f"there are {settings.num_rounds}. Leave it out, or raise num-rounds."
        )
    if settings.is_deployment:
        _check_deployment(settings)
    if settings.strategy == "collabedit":
        betas = settings.beta_0, settings.beta_1
        check_history(settings.history, schedule, settings.sweeps, *betas)
    if settings.resume and (
        settings.checkpoints == "none" or settings.strategy in OF_THEIR_OWN
    ):
        raise ConfigurationError(
            f"resume needs checkpoints, found checkpoints = {settings.checkpoints!r} "
            f"and strategy = {settings.strategy!r}; models of clients' own have none. "
            "Leave resume out."
        )
    if settings.strategy in OF_THEIR_OWN:
        if settings.layer_schedule or settings.residual_split:
            raise ConfigurationError(
                f"Strategy {settings.strategy!r} lets each client edit alone as its "
                f"editor does, found layer-schedule = {settings.layer_schedule!r}, "
                "residual-split = "
                f"{settings.residual_split!r}. Leave both out."
            )
        if settings.strategy == "local-only" and (
            settings.conflict_policy or settings.presence
        ):
            raise ConfigurationError(
                "Strategy 'local-only' has no two clients' edits in one model, found "
                f"conflict-policy = {settings.conflict_policy!r}, presence = "
                f"{settings.presence!r}. Leave both out."
            )
    elif is_merging and schedule == "synchronous":
        raise ConfigurationError(
            f"Strategy {settings.strategy!r} merges what clients wrote alone, found "
            "layer-schedule = 'synchronous'. Set it to 'local' or 'frozen'."
        )


def _check_read(settings: "ExperimentSettings") -> None:
    fields = type(settings).model_fields
    for field, strategies in _READ_BY.items():
        is_set = getattr(settings, field) != fields[field].default
        if is_set and settings.strategy not in strategies:
            raise ConfigurationError(
                f"Strategy {settings.strategy!r} does not read {kebab(field)} = "
                f"{getattr(settings, field)!r}, only {shorten(strategies)} does. "
                "Leave it out."
            )
    for field, (other, reads) in _READ_WITH.items():
        is_set = getattr(settings, field) != fields[field].default
        if is_set and not reads(getattr(settings, other)):
            raise ConfigurationError(
                f"{kebab(field)} = {getattr(settings, field)!r} is not read with "
                f"{kebab(other)} = {getattr(settings, other)!r}. Change the latter or "
                f"leave {kebab(field)} out."
            )


def _check_deployment(settings: "ExperimentSettings") -> None:
    fields = type(settings).model_fields
    for field in _OF_SIMULATIONS:
        if getattr(settings, field) != fields[field].default:
            raise ConfigurationError(
                f"{kebab(field)} = {getattr(settings, field)!r} is not read with data "
                f"= {NODES!r}: facts, texts and keys are each party's own. Leave it "
                "out; docs/deployment.md lists what a SuperNode's --node-config says."
            )
    if settings.pooled_reference:
        raise ConfigurationError(
            f"pooled-reference = true needs all facts in one place, and with data = "
            f"{NODES!r} nobody has them. Set pooled-reference = false."
        )
    if settings.strategy != "collabedit" or settings.layer_schedule == "local":
        raise ConfigurationError(
            f"With data = {NODES!r} clients have no second moments to edit alone with, "
            f"found strategy = {settings.strategy!r} and layer-schedule = "
            f"{settings.layer_schedule!r}. Use 'collabedit' with 'frozen' or "
            "'synchronous'."
        )
