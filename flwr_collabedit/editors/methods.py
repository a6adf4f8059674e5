"""The editors: what MEMIT and PMET do differently, in one place.

They share the keys, the solve, the passes over the layers and the optimiser. They
differ in the loss of a target, in the module whose output the target is compared with
and in the share of the residual that a layer writes
(`flwr_collabedit.algebra.schedule.check_schedule`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flwr_collabedit.algebra.schedule import Editor, editor_of
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.pmet import PmetLoss
from flwr_collabedit.editors.pmet_config import PmetConfig
from flwr_collabedit.editors.target_loss import MemitLoss, TargetLoss
from flwr_collabedit.models.language_model import LanguageModel


@dataclass(frozen=True)
class Method:
    """What one editor has of its own.

    Attributes
    ----------
    config : type
        Class of its configuration.
    loss : callable
        Makes the loss of its targets from model, rows and configuration.
    places : tuple of callable
        Give, for model and layer, the names of the modules whose outputs at the
        subject's last token its deltas are added to. The last one is what the edit is
        to change: targets and current values are its outputs.
    """

    config: type[MemitConfig]
    loss: Callable[..., TargetLoss]
    places: tuple[Callable[[LanguageModel, int], str], ...]


METHODS: Mapping[Editor, Method] = {
    "memit": Method(MemitConfig, MemitLoss, (LanguageModel.block_name,)),
    "pmet": Method(
        PmetConfig,
        PmetLoss,
        (LanguageModel.attention_projection_name, LanguageModel.down_projection_name),
    ),
}


def method_of(config: MemitConfig) -> Method:
    """Return the editor that the configuration is for."""
    return METHODS[config.editor]


def target_module(lm: LanguageModel, config: MemitConfig) -> str:
    """Return the name of the module whose output the targets are.

    Raises
    ------
    ConfigurationError
        If the model's family does not have what the editor changes.
    """
    return [name(lm, config.layers[-1]) for name in method_of(config).places][-1]


def read_config(text: str) -> MemitConfig:
    """Return the configuration that ``to_json`` wrote, of the editor that it names.

    Raises
    ------
    ConfigurationError
        For an unknown editor, an unknown name or a value out of range.
    """
    return METHODS[editor_of(text)].config.from_json(text)
