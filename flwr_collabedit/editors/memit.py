"""MEMIT: many facts written into the down-projections of several layers.

Meng et al. "Mass-Editing Memory in a Transformer", ICLR 2023, Algorithm 1.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor
from torch.linalg import vector_norm

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.least_squares import solve_update
from flwr_collabedit.algebra.schedule import (
    LayerSchedule,
    ResidualSplit,
    check_schedule,
    residual_share,
)
from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.keys import collect_keys, current_values
from flwr_collabedit.editors.targets import (
    Progress,
    Targets,
    check_model,
    optimize_targets,
)
from flwr_collabedit.errors import SecondMomentError, shorten
from flwr_collabedit.models.loading import LanguageModel
from flwr_collabedit.models.weights import applied_deltas, weight_shapes, write_delta

Deltas = Mapping[str, Tensor]


@dataclass(frozen=True)
class MemitResult:
    """What an edit changes, and how it went.

    Attributes
    ----------
    deltas : dict of str to Tensor
        For each edited weight the *sum* of the delta that the edit started from and
        of this edit's update, shape ``(d_value, d_key)``, float64.
    targets : Targets
        The targets that were written.
    residual_norms_before, residual_norms_after : Tensor
        ``||z - current value||`` of each request before and after the edit, shape
        ``(edit,)``, float64.
    seconds : dict of str to float
        Wall-clock time of the phases ``targets``, ``measure`` and ``solve``.
    """

    deltas: dict[str, Tensor]
    targets: Targets
    residual_norms_before: Tensor
    residual_norms_after: Tensor
    seconds: dict[str, float]


def measure(
    lm: LanguageModel,
    layers: Sequence[int],
    requests: Sequence[EditRequest],
    z: Tensor,
    contexts: ContextTemplates,
    *,
    target_layer: int,
) -> tuple[dict[int, Tensor], Tensor]:
    """Return the keys of ``layers`` and the residuals on the model as it is now.

    Parameters
    ----------
    lm : LanguageModel
        The model, with whatever deltas are to be seen already applied.
    layers : sequence of int
        One layer (``synchronous``) or all edited ones (``frozen``).
    requests : sequence of EditRequest
        ``n`` of them, in the order of ``z``; may be empty.
    z : Tensor
        Targets, shape ``(n, d_model)``.
    contexts : ContextTemplates
        Contexts of the keys.
    target_layer : int
        The last edited layer, where the targets live.

    Returns
    -------
    keys : dict of int to Tensor
        ``(d_key, n)`` for each layer, float64.
    residuals : Tensor
        ``z`` minus the current values, *not* divided over the layers, ``(d_value, n)``,
        float64.
    """
    keys = collect_keys(lm, requests, layers, contexts)
    current = current_values(lm, requests, target_layer)
    return keys, (z.to(lm.device).double() - current.double()).T


class MemitEditor:
    """Edits a model with MEMIT and leaves it as it was: the result is a delta.

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
        self._shapes = weight_shapes(lm, config.layers)
        _check_second_moments(lm, self._shapes, second_moments)
        self._lm, self._config, self._contexts = lm, config, contexts
        self._second_moments = second_moments

    def edit(
        self,
        requests: Sequence[EditRequest],
        *,
        layer_schedule: LayerSchedule = "synchronous",
        residual_split: ResidualSplit | None = None,
        start: Deltas | None = None,
        progress: Progress | None = None,
    ) -> MemitResult:
        """Return the deltas that write ``requests``; the model is not changed.

        Parameters
        ----------
        requests : sequence of EditRequest
            The facts. With none of them the result is ``start``, or zeros.
        layer_schedule : {"synchronous", "frozen"}
            Whether a layer is measured with the layers below it already written
            (canonical MEMIT) or all are measured on the same model.
        residual_split : {"remaining", "uniform"} or None
            Each layer's share of the residual; ``None`` is the schedule's own.
        start : mapping of str to Tensor or None
            Deltas that the model already has (earlier rounds); ``None`` for none.
        progress : callable or None
            Called with the number of finished targets.

        Raises
        ------
        ConfigurationError
            For a schedule and split that do not go together.
        SingularSystemError
            If the second moment does not make the solve well-posed.
        """
        schedule, split = check_schedule(layer_schedule, residual_split)
        deltas = self._started(start)
        clock = _Clock()
        with clock.phase("targets"), applied_deltas(self._lm, deltas):
            targets = optimize_targets(
                self._lm, requests, self._config, self._contexts, progress=progress
            )
        groups = [[layer] for layer in self._config.layers]
        if schedule == "frozen":
            groups = [list(self._config.layers)]
        for layers in groups:
            with clock.phase("measure"), applied_deltas(self._lm, deltas):
                keys, residuals = self._measure(layers, requests, targets)
            with clock.phase("solve"):
                for layer in layers:
                    name = self._lm.weight_name(layer)
                    update = self._solve(layer, keys[layer], residuals, split)
                    deltas[name] = deltas[name] + update
        with clock.phase("measure"), applied_deltas(self._lm, deltas):
            after = self._residual_norms(requests, targets.z)
        before = vector_norm((targets.z - targets.initial).double(), dim=1)
        return MemitResult(deltas, targets, before, after, clock.seconds)

    def _started(self, start: Deltas | None) -> dict[str, Tensor]:
        device = self._lm.device
        zeros = {
            name: torch.zeros(shape, dtype=torch.float64, device=device)
            for name, shape in self._shapes.items()
        }
        given = {
            name: delta.to(device, torch.float64)
            for name, delta in (start or {}).items()
        }
        return {**zeros, **given}

    def _measure(
        self, layers: Sequence[int], requests: Sequence[EditRequest], targets: Targets
    ) -> tuple[dict[int, Tensor], Tensor]:
        return measure(
            self._lm,
            layers,
            requests,
            targets.z,
            self._contexts,
            target_layer=self._config.layers[-1],
        )

    def _solve(
        self, layer: int, keys: Tensor, residuals: Tensor, split: ResidualSplit
    ) -> Tensor:
        layers, name = self._config.layers, self._lm.weight_name(layer)
        share = residual_share(layers.index(layer), len(layers), split)
        prior = self._second_moments[name].to(keys) * self._config.second_moment_weight
        return solve_update(EditStatistics.from_pairs(keys, share * residuals), prior)

    def _residual_norms(self, requests: Sequence[EditRequest], z: Tensor) -> Tensor:
        current = current_values(self._lm, requests, self._config.layers[-1])
        norms: Tensor = vector_norm((z - current).double(), dim=1)
        return norms


def apply(lm: LanguageModel, result: MemitResult) -> None:
    """Write an edit into the model's weights for good.

    The model must be the one without the delta that the edit started from, because
    ``result.deltas`` contains it.
    """
    for name, delta in result.deltas.items():
        write_delta(lm, name, delta)


class _Clock:
    """Adds up wall-clock seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time that the block takes to ``name``."""
        begin = perf_counter()
        yield
        passed = perf_counter() - begin
        self.seconds[name] = self.seconds.get(name, 0.0) + passed


def _check_second_moments(
    lm: LanguageModel,
    shapes: Mapping[str, tuple[int, int]],
    second_moments: Mapping[str, Tensor],
) -> None:
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
