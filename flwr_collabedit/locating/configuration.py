"""MEMIT's hyperparameters for a model that nobody has published any for."""

from collections.abc import Sequence
from typing import Any

from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.models.language_model import LanguageModel

STILL_TO_CHOOSE = (
    "mom2_update_weight is the one value that the trace says nothing about: 15,000 to "
    "20,000 is published for models of 1.5 to 20 billion parameters, small ones need "
    "far less (the embedded one 60). Larger keeps more of what the model knew, smaller "
    "makes edits take; try a few on some hundred facts with `collabedit edit` and "
    "compare efficacy with neighbourhood."
)


def located_hyperparameters(lm: LanguageModel, layers: Sequence[int]) -> dict[str, Any]:
    """Return hyperparameters under their published names, for ``from_published``.

    The layers are those given, the loss reads the model's last block, and everything
    else is MemitConfig's default, that is, what is published for GPT-2 XL and GPT-J.

    Raises
    ------
    ConfigurationError
        If the model has no such layers.
    """
    lm.check_layers(layers)
    config = MemitConfig(layers=tuple(layers), loss_layer=lm.num_layers - 1)
    values = config.model_dump(mode="json")
    published = {
        theirs: values[ours] for theirs, ours in MemitConfig.published_names.items()
    }
    return {"fact_token": "subject_last", **published}
