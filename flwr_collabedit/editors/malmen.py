"""MALMEN: many facts in one least squares, their targets from a trained network.

Tan, Zhang and Fu, "Massive Editing for Large Language Models via Meta Learning", ICLR
2024, https://arxiv.org/abs/2311.04661. The network maps each answer token's key and
gradient to what the weight is to put out in addition, ``D``; the update is
``D K^T (K K^T + lambda I)^-1``. So it federates by the same two sums as MEMIT's, with
``lambda I`` in the place of the second moment (Zheng et al., "CollabEdit", ICLR 2025).

The published code, though, takes the mean of the loss over each batch of texts, and
goes on updating the network's input statistics while it edits: there an edit depends on
those beside it, and a federation is not what one party with all edits would do. Both
are options here; the defaults make the sums of clients those of all edits.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch

from flwr_collabedit.algebra.edit_statistics import EditStatistics
from flwr_collabedit.algebra.running_sum import StatisticsSum
from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.editor import EditResult, ModelEdit, Progress
from flwr_collabedit.editors.hypernetwork_editor import HypernetworkEditor
from flwr_collabedit.editors.hypernetwork_file import TrainedHypernetwork
from flwr_collabedit.editors.label_gradients import Pair
from flwr_collabedit.editors.layer_passes import Clock
from flwr_collabedit.editors.malmen_config import MalmenConfig
from flwr_collabedit.editors.start import start_deltas
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import applied_deltas


class MalmenEditor(HypernetworkEditor):
    """Edits a model with MALMEN and leaves it as it was: the result is a delta.

    Parameters
    ----------
    lm, hypernetwork
        See `HypernetworkEditor`.
    config : MalmenConfig
        Hyperparameters.

    Attributes
    ----------
    priors : dict of str to RidgePrior
        ``lambda I`` of every edited weight.
    """

    form = "least-squares"

    def __init__(
        self, lm: LanguageModel, config: MalmenConfig, hypernetwork: TrainedHypernetwork
    ) -> None:
        super().__init__(lm, config, hypernetwork)
        self._normalizer = config.normalizer
        self.priors = hypernetwork.priors()

    def measure(self, requests: Sequence[EditRequest]) -> dict[str, Pair]:
        """Return what each edited weight is solved from, on the model as it is now.

        Parameters
        ----------
        requests : sequence of EditRequest
            May be empty.

        Returns
        -------
        dict of str to (Tensor, Tensor)
            Keys ``(d_key, token)`` and what the weight is to put out for each in
            addition, ``(d_value, token)``, float64, by the weight's name.
        """
        self._check_count(len(requests))
        return self._measure(requests, None)

    def edit(
        self,
        requests: Sequence[EditRequest],
        *,
        start: ModelEdit | None = None,
        progress: Progress | None = None,
    ) -> EditResult:
        """Return the deltas that write ``requests``; the model is not changed.

        Parameters
        ----------
        requests : sequence of EditRequest
            The facts. With none of them the result is ``start``, or zeros.
        start : ModelEdit or None
            What earlier edits have changed, and what their history means for these,
            see `flwr_collabedit.algebra.history`; ``None`` for nothing.
        progress : callable or None
            Called with the number of requests measured.

        Raises
        ------
        HypernetworkError
            If there are more of them than the network was trained for at once.
        SingularSystemError
            If ``lambda`` does not make the solve well-posed.
        """
        self._check_count(len(requests))
        start, clock = start or ModelEdit(), Clock()
        history = start.history
        deltas = start_deltas(self._lm, self._config.layers, start)
        if not requests:
            return EditResult(deltas, history=history)
        seen = {} if history.is_from_base else deltas
        with clock.phase("measure"), applied_deltas(self._lm, seen):
            measured = self._measure(requests, progress)
        totals = {
            name: StatisticsSum.of(EditStatistics.from_pairs(*pair))
            for name, pair in measured.items()
        }
        with clock.phase("solve"):
            for name, prior in self.priors.items():
                total = totals[name]
                here = prior.to(total.gram.total)
                deltas[name] = history.solve(name, total, here, 1.0, deltas[name], None)
        return EditResult(deltas, history=history.plus(totals), seconds=clock.seconds)

    @torch.no_grad()
    def _measure(
        self, requests: Sequence[EditRequest], progress: Progress | None
    ) -> dict[str, Pair]:
        network = self._network
        pairs = self._gradients(requests, progress)
        if self._normalizer == "running":
            network = deepcopy(network)
            for name, pair in pairs.items():
                network.observe(name, *pair)
        return {
            name: (keys, network.value_differences(name, keys, gradients).double())
            for name, (keys, gradients) in pairs.items()
        }
