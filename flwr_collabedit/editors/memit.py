"""MEMIT, PMET and AlphaEdit: many facts written into down-projections of some layers.

Meng et al. "Mass-Editing Memory in a Transformer", ICLR 2023, Algorithm 1; Li et al.
"PMET: Precise Model Editing in a Transformer", AAAI 2024 and Fang et al. "AlphaEdit:
Null-Space Constrained Knowledge Editing for Language Models", ICLR 2025 make the same
passes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.linalg import vector_norm

from flwr_collabedit.algebra.history import check_history
from flwr_collabedit.algebra.schedule import (
    LayerSchedule,
    ResidualSplit,
    check_schedule,
    check_sweeps,
)
from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.editor import EditResult, ModelEdit, Progress
from flwr_collabedit.editors.keys import current_values
from flwr_collabedit.editors.layer_passes import LayerPasses, Plan
from flwr_collabedit.editors.methods import priors_of
from flwr_collabedit.editors.start import start_deltas
from flwr_collabedit.editors.targets import (
    Targets,
    check_model,
    optimize_targets,
)
from flwr_collabedit.errors import ConfigurationError, SecondMomentError, shorten
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import applied_deltas, weight_shapes, write_delta


@dataclass(frozen=True, kw_only=True)
class MemitResult(EditResult):
    """What an edit changes, and how it went; phases ``targets, measure, solve``.

    Attributes
    ----------
    targets : Targets
        The targets that were written.
    residual_norms_before, residual_norms_after : Tensor
        ``||z - current value||`` of each request before and after the edit, shape
        ``(edit,)``, float64.
    sweep_residual_norms : list of float
        Frobenius norm of all residuals at the start of every sweep.
    """

    targets: Targets
    residual_norms_before: Tensor
    residual_norms_after: Tensor
    sweep_residual_norms: list[float]


class MemitEditor:
    """Edits a model with MEMIT and leaves it as it was: the result is a delta.

    With a `flwr_collabedit.editors.pmet_config.PmetConfig` it edits with PMET, with an
    `flwr_collabedit.editors.alpha_edit_config.AlphaEditConfig` with AlphaEdit.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    config : MemitConfig
        Hyperparameters.
    contexts : ContextTemplates
        Contexts of targets and keys.
    second_moments : mapping of str to Tensor
        ``C0`` of each edited weight, ``(d_key, d_key)``, under the weight's name.

    Raises
    ------
    ConfigurationError
        If the layers do not fit the model.
    SecondMomentError
        If a second moment is missing or of another model's shape.
    """

    def __init__(
        self,
        lm: LanguageModel,
        config: MemitConfig,
        contexts: ContextTemplates,
        second_moments: Mapping[str, Tensor],
    ) -> None:
        check_model(lm, config)
        check_second_moments(lm, weight_shapes(lm, config.layers), second_moments)
        self._lm, self._config, self._contexts = lm, config, contexts
        self._priors = priors_of(config, second_moments)

    def edit(
        self,
        requests: Sequence[EditRequest],
        *,
        layer_schedule: LayerSchedule | None = None,
        residual_split: ResidualSplit | None = None,
        sweeps: int = 1,
        sweep_tolerance: float = 0.0,
        start: ModelEdit | None = None,
        progress: Progress | None = None,
    ) -> MemitResult:
        """Return the deltas that write ``requests``; the model is not changed.

        Parameters
        ----------
        requests : sequence of EditRequest
            The facts. With none of them the result is ``start``, or zeros.
        layer_schedule : {"synchronous", "frozen"} or None
            Whether a layer is measured with the layers below it already written
            (canonical MEMIT, ``None``) or all are measured on the same model.
        residual_split : {"remaining", "uniform", "square-root"} or None
            Each layer's share of the residual; ``None`` is the editor's own, see
            `flwr_collabedit.algebra.schedule.check_schedule`.
        sweeps : int
            Passes over the layers, at most; 1 is canonical MEMIT. Each further one
            measures again and takes a proximal step on what is left.
        sweep_tolerance : float
            Stops before, see `flwr_collabedit.algebra.schedule.sweeps_settled`.
        start : ModelEdit or None
            What earlier edits have changed, and what their history means for these,
            see `flwr_collabedit.algebra.history`; ``None`` for nothing.
        progress : callable or None
            Called with the number of finished targets.

        Raises
        ------
        ConfigurationError
            For a schedule, split and number of sweeps that do not go together.
        SingularSystemError
            If the second moment does not make the solve well-posed.
        """
        plan = self._plan(layer_schedule, residual_split, sweeps, sweep_tolerance)
        start = start or ModelEdit()
        history = start.history
        check_history(history.option, plan.schedule, sweeps, *history.betas)
        passes = self._passes(start)
        with (
            passes.clock.phase("targets"),
            applied_deltas(self._lm, passes.seen_deltas),
        ):
            targets = optimize_targets(
                self._lm, requests, self._config, self._contexts, progress=progress
            )
        passes.run(requests, targets.z, plan)
        with (
            passes.clock.phase("measure"),
            applied_deltas(self._lm, passes.deltas),
        ):
            after = self._residual_norms(requests, targets.z)
        before = vector_norm((targets.z - targets.initial).double(), dim=1)
        return MemitResult(
            passes.deltas,
            targets=targets,
            residual_norms_before=before,
            residual_norms_after=after,
            sweep_residual_norms=passes.residual_norms,
            seconds=passes.clock.seconds,
            history=passes.history,
        )

    def write(
        self,
        requests: Sequence[EditRequest],
        z: Tensor,
        *,
        layer_schedule: LayerSchedule | None = None,
        residual_split: ResidualSplit | None = None,
        start: ModelEdit | None = None,
    ) -> LayerPasses:
        """Write targets that are known already in one pass; the model is not changed.

        Parameters
        ----------
        z : Tensor
            Targets, shape ``(n, d_model)``, in the order of ``requests``.
        requests, layer_schedule, residual_split, start
            See `edit`.

        Returns
        -------
        LayerPasses
            With the cumulative deltas and what they were solved from.
        """
        passes = self._passes(start or ModelEdit())
        passes.run(requests, z, self._plan(layer_schedule, residual_split))
        return passes

    def _passes(self, start: ModelEdit) -> LayerPasses:
        return LayerPasses(
            self._lm,
            self._config,
            self._contexts,
            self._priors,
            start_deltas(self._lm, self._config.layers, start),
            start.history,
        )

    def _residual_norms(self, requests: Sequence[EditRequest], z: Tensor) -> Tensor:
        current = current_values(self._lm, requests, self._config)
        norms: Tensor = vector_norm((z - current).double(), dim=1)
        return norms

    def _plan(
        self,
        layer_schedule: str | None,
        residual_split: str | None,
        sweeps: int = 1,
        sweep_tolerance: float = 0.0,
    ) -> Plan:
        schedule, split = check_schedule(
            layer_schedule, residual_split, self._config.editor
        )
        if schedule == "local":
            raise ConfigurationError(
                "The 'local' schedule is for federations; one party that edits alone "
                "is 'synchronous'."
            )
        check_sweeps(schedule, split, sweeps, sweep_tolerance)
        return Plan(schedule, split, sweeps, sweep_tolerance)


def apply(lm: LanguageModel, result: ModelEdit) -> None:
    """Write an edit into the model's weights for good.

    The model must be the one without the delta that the edit started from, because
    ``result.deltas`` contains it.
    """
    for name, delta in result.deltas.items():
        write_delta(lm, name, delta)


def check_second_moments(
    lm: LanguageModel,
    shapes: Mapping[str, tuple[int, int]],
    second_moments: Mapping[str, Tensor],
) -> None:
    """Raise `SecondMomentError` unless every weight's ``C0`` is there and fits."""
    for name, (_, d_key) in shapes.items():
        if name not in second_moments:
            raise SecondMomentError(
                f"Expected a second moment for {name!r} of {lm.name!r}, found those of "
                f"{shorten(second_moments)}. Estimate it with the same edited layers."
            )
        found = second_moments[name]
        if tuple(found.shape) != (d_key, d_key) or not found.isfinite().all():
            raise SecondMomentError(
                f"Expected a finite second moment of shape {(d_key, d_key)} for "
                f"{name!r} of {lm.name!r}, found shape {tuple(found.shape)}"
                f"{'' if found.isfinite().all() else ' with NaN or infinity'}. "
                "It belongs to another model; estimate it on this one."
            )
