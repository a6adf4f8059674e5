"""ROME: one fact after another written into the down-projection of one layer.

Meng et al. "Locating and Editing Factual Associations in GPT", NeurIPS 2022.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from flwr_collabedit.algebra.least_squares import factor_cholesky
from flwr_collabedit.algebra.rank_one import key_direction, rank_one_update
from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.editor import EditResult, ModelEdit, Progress
from flwr_collabedit.editors.keys import collect_keys
from flwr_collabedit.editors.layer_passes import Clock
from flwr_collabedit.editors.memit import check_second_moments
from flwr_collabedit.editors.rome_config import RomeConfig
from flwr_collabedit.editors.start import start_deltas
from flwr_collabedit.editors.targets import check_model, optimize_targets
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import applied_deltas, read_weight, weight_shapes


class RomeEditor:
    """Edits a model with ROME and leaves it as it was: the result is a delta.

    ROME is defined for one fact. Several requests are several edits, each measured and
    written on the model as the one before left it, in the order given; an edit does not
    know what those before it wrote, and may undo it. The outcome is therefore no
    function of sums over the edits: parties of a federation can merge their deltas
    (EditAvg, Simple-Average, Task-Arithmetic, TIES), but CollabEdit has nothing to
    merge.

    With ``u`` from the key ``kbar`` that is the plain mean over the contexts, as in the
    published code (MEMIT gives the bare prompt half the weight), an edit adds::

        Delta = (v* - W k) u^T / (k . u)        u = C0^-1 kbar / |C0^-1 kbar|

    where ``k`` is the bare prompt's key, or ``kbar`` with ``consistent_keys``. The
    contexts are those of the other editors; the published code draws twenty of its own.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    config : RomeConfig
        Hyperparameters.
    contexts : ContextTemplates
        Contexts of targets and keys; their groups do not matter.
    second_moments : mapping of str to Tensor
        ``C0`` of the edited weight, ``(d_key, d_key)``, under its name; not read
        without ``adjust_keys``.

    Raises
    ------
    ConfigurationError
        If the layer or the family does not fit the editor.
    SecondMomentError
        If the second moment is missing or of another model's shape.
    SingularSystemError
        If it has no Cholesky factor.
    """

    def __init__(
        self,
        lm: LanguageModel,
        config: RomeConfig,
        contexts: ContextTemplates,
        second_moments: Mapping[str, Tensor],
    ) -> None:
        check_model(lm, config)
        [self._layer] = config.layers
        self._lm, self._config = lm, config
        self._contexts = ContextTemplates((contexts.templates,))  # equal weights
        self._name = lm.weight_name(self._layer)
        self._factor: Tensor | None = None
        if config.adjust_keys:
            check_second_moments(lm, weight_shapes(lm, config.layers), second_moments)
            self._factor = factor_cholesky(second_moments[self._name].to(lm.device))

    def edit(
        self,
        requests: Sequence[EditRequest],
        *,
        start: ModelEdit | None = None,
        progress: Progress | None = None,
    ) -> EditResult:
        """Return the deltas that write ``requests`` one by one; the model is unchanged.

        Parameters
        ----------
        requests, start, progress
            See `flwr_collabedit.editors.editor.Editor.edit`; phases are ``targets`` and
            ``measure``.

        Raises
        ------
        NonFiniteOutputError
            If a request's loss is not finite: the edits before it may have broken the
            model, and nothing is returned. Edit fewer at once.
        SingularSystemError
            If the bare prompt's key is orthogonal to the direction.
        """
        clock = Clock()
        deltas = start_deltas(self._lm, self._config.layers, start)
        for count, request in enumerate(requests, start=1):
            with applied_deltas(self._lm, deltas):
                update = self._update(request, clock)
            deltas[self._name] = deltas[self._name] + update
            if progress:
                progress(count)
        return EditResult(deltas, seconds=clock.seconds)

    def _update(self, request: EditRequest, clock: Clock) -> Tensor:
        """Return what one edit adds to the weight as it is now."""
        lm, config = self._lm, self._config
        with clock.phase("targets"):
            target = optimize_targets(lm, [request], config, self._contexts)
        with clock.phase("measure"):
            mean_key, bare_key = (
                collect_keys(lm, [request], [self._layer], contexts)[self._layer][:, 0]
                for contexts in (self._contexts, ContextTemplates())
            )
            residual = (target.z - target.initial)[0].double()  # v* - W k0
            key = bare_key
            if config.consistent_keys:
                key = mean_key
                weight = read_weight(lm.model, self._name).to(lm.device).double()
                residual = residual - weight @ (mean_key - bare_key)
            return rank_one_update(residual, key, key_direction(mean_key, self._factor))
