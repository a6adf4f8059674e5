"""What MALMEN and MEND share: a trained network, and the gradients that it reads."""

from collections.abc import Sequence
from typing import ClassVar

from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.editor import Progress
from flwr_collabedit.editors.hypernetwork_config import FormName
from flwr_collabedit.editors.hypernetwork_editor_config import HypernetworkEditorConfig
from flwr_collabedit.editors.hypernetwork_file import TrainedHypernetwork
from flwr_collabedit.editors.label_gradients import Pair, label_gradients
from flwr_collabedit.models.language_model import LanguageModel


class HypernetworkEditor:
    """Base of the editors with a hypernetwork, which has to be one for the model.

    Parameters
    ----------
    lm : LanguageModel
        The model, not edited yet.
    config : HypernetworkEditorConfig
        Hyperparameters.
    hypernetwork : TrainedHypernetwork
        Trained for the editor, on this model and these layers. It is not changed.

    Raises
    ------
    ConfigurationError
        If the layers do not fit the model.
    HypernetworkError
        If the hypernetwork is untrained, or not one of this model, these layers, this
        editor or the configuration's fingerprint.
    """

    form: ClassVar[FormName]

    def __init__(
        self,
        lm: LanguageModel,
        config: HypernetworkEditorConfig,
        hypernetwork: TrainedHypernetwork,
    ) -> None:
        lm.check_layers(config.layers)
        hypernetwork.check(lm, config.layers, self.form, expected=config.hypernetwork)
        self._lm, self._config = lm, config
        self._check_count = hypernetwork.check_count
        self._network = hypernetwork.network_on(lm)

    def _gradients(
        self, requests: Sequence[EditRequest], progress: Progress | None
    ) -> dict[str, Pair]:
        """Return what the network reads of each weight, on the model as it is now."""
        found = self._network.config
        return label_gradients(
            self._lm,
            list(found.weights),
            requests,
            tokens=found.tokens,
            reduction=found.reduction,
            rows_per_batch=self._config.rows_per_batch,
            progress=progress,
        )
