"""MEND: a trained network makes a better step of an edit's gradient.

Mitchell, Lin, Bosselut, Finn and Manning, "Fast Model Editing at Scale", ICLR 2022,
https://arxiv.org/abs/2110.11309. The gradient in a weight is a sum of rank-one parts
``g_j k_j^T`` over tokens; the network maps each part's factors, and the update is
``-rate sum_j g~_j k~_j^T``.

Differences to the published code: the down projections are edited, and not both
matrices of each MLP; the network is MALMEN's, of which MEND's is the form with one
block; it is trained on many facts at once where published MEND is trained on one, so
that a batch of edits is what it knows.
"""

from collections.abc import Sequence

import torch

from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.closed_forms import outer_product
from flwr_collabedit.editors.editor import EditResult, ModelEdit, Progress
from flwr_collabedit.editors.hypernetwork_editor import HypernetworkEditor
from flwr_collabedit.editors.layer_passes import Clock
from flwr_collabedit.editors.start import start_deltas
from flwr_collabedit.models.weights import applied_deltas


class MendEditor(HypernetworkEditor):
    """Edits a model with MEND and leaves it as it was: the result is a delta.

    An edit is a sum over the facts, with nothing solved: what clients write alone adds
    up, by Task-Arithmetic with scale 1, to what one party with all facts would write.
    There are no other sums to it, so that CollabEdit does not take it. Parameters and
    errors are those of `HypernetworkEditor`.
    """

    form = "outer-product"

    @torch.no_grad()
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
        requests, start, progress
            See `flwr_collabedit.editors.editor.Editor.edit`; the phase is ``measure``.

        Raises
        ------
        HypernetworkError
            If there are more of them than the network was trained for at once.
        NonFiniteOutputError
            If the loss of the requests is not finite.
        """
        self._check_count(len(requests))
        clock = Clock()
        deltas = start_deltas(self._lm, self._config.layers, start)
        if not requests:
            return EditResult(deltas)
        with clock.phase("measure"), applied_deltas(self._lm, deltas):
            pairs = self._gradients(requests, progress)
        for name, pair in pairs.items():
            deltas[name] = deltas[name] + outer_product(self._network, name, *pair)
        return EditResult(deltas, seconds=clock.seconds)
