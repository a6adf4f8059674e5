"""From settings to the strategy that the server runs, and what one party does alike."""

from collections.abc import Callable
from typing import Any

from flwr_collabedit.algebra.priors import Priors
from flwr_collabedit.conflict_resolution import Resolution
from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.editor_config import EditorConfig
from flwr_collabedit.strategies import (
    CollabEditStrategy,
    DeclarationRules,
    EditAvg,
    EditStrategy,
    FedEditStrategy,
    LocalOnlyStrategy,
    RoundGuard,
    RoundReport,
    SecureAggregation,
    SimpleAverage,
    TaskArithmetic,
    TiesMerging,
    Withdrawal,
)
from simulations.run_folder import CHECKPOINTS
from simulations.setting_checks import OF_THEIR_OWN
from simulations.settings import ExperimentSettings

METHOD_NAMES = {
    "collabedit": "CollabEdit",
    "edit-avg": "EditAvg",
    "simple-average": "Simple-Average",
    "task-arithmetic": "Task-Arithmetic",
    "ties": "TIES",
    "fed-edit": "FedEdit",
    "local-only": "Local-only",
}
"""What reports call a strategy."""


def make_strategy(
    settings: ExperimentSettings,
    model: EditedModel,
    config: EditorConfig,
    contexts: ContextTemplates,
    priors: Callable[[], Priors],
    on_round: Callable[[RoundReport], None],
) -> EditStrategy:
    """Return the strategy that ``settings.strategy`` names, with its options.

    Parameters
    ----------
    settings : ExperimentSettings
        Checked already, so that no option is given that the strategy does not read.
    model : EditedModel
        What is edited.
    config, contexts
        Sent to the clients.
    priors : callable
        Gives the prior of each edited weight; called for CollabEdit only.
    on_round : callable
        Called with every round's report.
    """
    options: dict[str, Any] = {
        "layer_schedule": settings.layer_schedule or None,
        "residual_split": settings.residual_split or None,
        "hyperparameters": config.to_json(),
        "contexts": contexts.to_json(),
        "wire_dtype": settings.wire_dtype,
        "min_available_nodes": settings.num_clients,
        "min_replies": settings.min_replies or None,
        "fraction_train": settings.fraction_train,
        "exchange_timeout_s": settings.exchange_timeout,
        "seed": settings.seed,
        "evaluate_every": settings.scored_rounds,
        "evaluate_before": settings.evaluate_before,
        "declarations": declaration_rules(settings),
        "guard": RoundGuard(
            max_perplexity_increase=settings.max_perplexity_increase or None,
            warn_perplexity_increase=settings.warn_perplexity_increase,
            warn_norm_increase=settings.warn_norm_increase,
        ),
        "on_round": on_round,
        "size_factor": settings.size_factor or None,
        "max_edits": settings.max_edits or None,
    }
    if settings.max_norm:
        options["max_norm"] = settings.max_norm
    if settings.checkpoints != "none" and settings.strategy not in OF_THEIR_OWN:
        options["checkpoint_folder"] = settings.folder / CHECKPOINTS
        options["keep_checkpoints"] = 0 if settings.checkpoints == "all" else 1
    # 0 stands for the method's own scale.
    scale = {"scale": settings.merge_scale} if settings.merge_scale else {}
    match settings.strategy:
        case "collabedit":
            return CollabEditStrategy(
                model,
                priors(),
                sweeps=settings.sweeps,
                sweep_tolerance=settings.sweep_tolerance,
                form=settings.form,
                secure=secure_aggregation(settings),
                history=settings.history,
                beta_0=settings.beta_0,
                beta_1=settings.beta_1,
                withdrawals=server_withdrawals(settings),
                **options,
            )
        case "edit-avg":
            return EditAvg(model, **options)
        case "simple-average":
            return SimpleAverage(model, **options)
        case "task-arithmetic":
            return TaskArithmetic(model, **scale, **options)
        case "ties":
            return TiesMerging(model, density=settings.ties_density, **scale, **options)
        case "local-only":
            del options["layer_schedule"], options["residual_split"]
            return LocalOnlyStrategy(model, run_id=settings.folder.name, **options)
        case "fed-edit":
            del options["layer_schedule"], options["residual_split"]
            return FedEditStrategy(
                model,
                run_id=settings.folder.name,
                alpha=settings.alpha,
                alpha_percentile=settings.alpha_percentile or None,
                similarity=settings.similarity,
                selection=settings.selection,
                targets_on=settings.targets_on,
                num_slots=settings.mkv_slots,
                max_vectors=settings.max_mkvs or None,
                **options,
            )


def declaration_rules(settings: ExperimentSettings) -> DeclarationRules | None:
    """Return what clients declare before they edit; ``None`` if it is nothing."""
    resolution = None
    if settings.conflict_policy:
        names = tuple(n for n in settings.conflict_priority.split(",") if n)
        resolution = Resolution(settings.conflict_policy, settings.overlap, names)
    take_back = any(text.startswith("case:") for text in withdrawals(settings))
    if resolution is None and not settings.presence and not take_back:
        return None
    return DeclarationRules(
        resolution=resolution,
        presence=settings.presence,
        present_from=settings.present_from,
        skip_present=settings.skip_present,
        augment=settings.conflict_augment,
        take_back=take_back,
    )


def secure_aggregation(settings: ExperimentSettings) -> SecureAggregation | None:
    """Return how statistics are summed without being seen; ``None`` if they are."""
    if not settings.secure_limbs:
        return None
    return SecureAggregation(num_limbs=settings.secure_limbs)


def withdrawals(settings: ExperimentSettings) -> list[str]:
    """Return what is taken back before which round, item by item."""
    return [text.strip() for text in settings.withdraw.split(",") if text.strip()]


def server_withdrawals(settings: ExperimentSettings) -> list[Withdrawal]:
    """Return the withdrawals that the server is told of: of clients and rounds."""
    texts = [text for text in withdrawals(settings) if not text.startswith("case:")]
    return [Withdrawal.parse(text) for text in texts]


def pooled_options(settings: ExperimentSettings) -> dict[str, Any]:
    """Return how one party with all edits works, for `MemitEditor.edit`.

    The same schedule, split and sweeps as the federation; what ``local`` is to clients,
    canonical MEMIT, is ``synchronous`` to one party.
    """
    schedule = settings.layer_schedule.replace("local", "synchronous")
    return {
        "layer_schedule": schedule or None,
        "residual_split": settings.residual_split or None,
        "sweeps": settings.sweeps,
        "sweep_tolerance": settings.sweep_tolerance,
    }
