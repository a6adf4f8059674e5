"""Passes over the edited layers: measure, solve, write, and perhaps again.

Meng et al. "Mass-Editing Memory in a Transformer", ICLR 2023, Algorithm 1 makes one
pass. A repeated pass is a proximal sweep, see ``docs/method.md``.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from torch import Tensor

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.history import EditHistory
from flwr_collabedit.algebra.priors import Priors
from flwr_collabedit.algebra.running_sum import StatisticsSum
from flwr_collabedit.algebra.schedule import (
    LayerSchedule,
    ResidualSplit,
    residual_share,
    sweeps_settled,
)
from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.keys import collect_keys, current_values
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import applied_deltas


def measure(
    lm: LanguageModel,
    layers: Sequence[int],
    requests: Sequence[EditRequest],
    z: Tensor,
    contexts: ContextTemplates,
    config: MemitConfig,
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
    config : MemitConfig
        Tells where the targets live.

    Returns
    -------
    keys : dict of int to Tensor
        ``(d_key, n)`` for each layer, float64.
    residuals : Tensor
        ``z`` minus the current values, *not* divided over the layers, ``(d_value, n)``,
        float64.
    """
    keys = collect_keys(lm, requests, layers, contexts)
    current = current_values(lm, requests, config)
    return keys, (z.to(lm.device).double() - current.double()).T


@dataclass(frozen=True)
class Plan:
    """Which passes to make; `flwr_collabedit.algebra.schedule` explains and checks."""

    schedule: LayerSchedule
    split: ResidualSplit
    sweeps: int = 1
    sweep_tolerance: float = 0.0


class Clock:
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


@dataclass
class LayerPasses:
    """The passes of one edit over the layers of one model.

    Parameters
    ----------
    lm, config, contexts
        The model without the deltas, the hyperparameters, the contexts of the keys.
    priors : mapping of str to Prior
        Of each edited weight.
    deltas : dict of str to Tensor
        What the model already has, ``(d_value, d_key)``, float64; `run` replaces it.
    history : EditHistory
        Of the edits before; `run` adds these.

    Attributes
    ----------
    measured : dict of str to (Tensor, Tensor)
        Keys ``(d_key, n)`` and undivided residuals ``(d_value, n)`` from which each
        weight was last solved, float64.
    residual_norms : list of float
        Frobenius norm of all residuals at the start of every sweep.
    clock : Clock
        Seconds of the phases ``measure`` and ``solve``.
    """

    lm: LanguageModel
    config: MemitConfig
    contexts: ContextTemplates
    priors: Priors
    deltas: dict[str, Tensor]
    history: EditHistory = field(default_factory=EditHistory)
    measured: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    residual_norms: list[float] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)

    def run(self, requests: Sequence[EditRequest], z: Tensor, plan: Plan) -> None:
        """Write targets ``z``, ``(n, d_model)``, by as many sweeps as the plan says."""
        start = dict(self.deltas)
        groups = [[layer] for layer in self.config.layers]
        if plan.schedule == "frozen":
            groups = [list(self.config.layers)]
        for _ in range(plan.sweeps):
            for index, layers in enumerate(groups):
                residuals = self._measure(layers, requests, z)
                if index == 0:
                    self.residual_norms.append(float(residuals.norm()))
                with self.clock.phase("solve"):
                    for layer in layers:
                        self._write(layer, start, plan)
            if sweeps_settled(self.residual_norms, plan.sweep_tolerance):
                break
        if self.history.option == "none":
            return
        self.history = self.history.plus(
            {name: _total(*found) for name, found in self.measured.items()}
        )

    @property
    def seen_deltas(self) -> Mapping[str, Tensor]:
        """The deltas of the model on which everything is measured."""
        return {} if self.history.is_from_base else self.deltas

    def _measure(
        self, layers: Sequence[int], requests: Sequence[EditRequest], z: Tensor
    ) -> Tensor:
        with self.clock.phase("measure"), applied_deltas(self.lm, self.seen_deltas):
            keys, residuals = measure(
                self.lm, layers, requests, z, self.contexts, self.config
            )
        for layer in layers:
            self.measured[self.lm.weight_name(layer)] = keys[layer], residuals
        return residuals

    def _write(self, layer: int, start: Mapping[str, Tensor], plan: Plan) -> None:
        layers, name = self.config.layers, self.lm.weight_name(layer)
        keys, residuals = self.measured[name]
        share = residual_share(layers.index(layer), len(layers), plan.split)
        total = _total(keys, residuals)
        prior = self.priors[name].to(keys)
        first = len(self.residual_norms) == 1
        written = None if first else self.deltas[name] - start[name]
        self.deltas[name] = self.history.solve(
            name, total, prior, share, self.deltas[name], written
        )


def _total(keys: Tensor, residuals: Tensor) -> StatisticsSum:
    return StatisticsSum.of(EditStatistics.from_pairs(keys, residuals))
