"""What the editors that optimise targets do differently, in one place.

They share the keys, the passes over the layers and the optimiser. They differ in the
loss of a target, in the module whose output the target is compared with, in the prior
of the solve and in the share of the residual that a layer writes
(`flwr_collabedit.algebra.schedule.check_schedule`). ROME shares the keys and the
optimiser alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from flwr_collabedit.algebra.priors import Prior, RidgePrior
from flwr_collabedit.algebra.projection import NullSpacePrior
from flwr_collabedit.editor_names import EditorName
from flwr_collabedit.editors.alpha_edit_config import AlphaEditConfig
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.pmet import PmetLoss
from flwr_collabedit.editors.pmet_config import PmetConfig
from flwr_collabedit.editors.rome_config import RomeConfig
from flwr_collabedit.editors.target_loss import MemitLoss, TargetLoss
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.models.language_model import LanguageModel


@dataclass(frozen=True)
class Method:
    """What one editor has of its own.

    Attributes
    ----------
    config : type
        Class of its configuration.
    loss : callable
        Makes the loss of its targets from model, rows, configuration and the names
        of its places.
    places : tuple of callable
        Give, for model and layer, the names of the modules whose outputs at the
        subject's last token its deltas are added to. The last one is what the edit is
        to change: targets and current values are its outputs.
    prior : callable or None
        Gives the prior of a weight's solve from the configuration and ``C0``,
        ``(d_key, d_key)``; ``None`` for an editor that does not solve for many edits
        at once.
    """

    config: type[MemitConfig]
    loss: Callable[..., TargetLoss]
    places: tuple[Callable[[LanguageModel, int], str], ...]
    prior: Callable[[Any, Tensor], Prior] | None = None


def _ridge(config: MemitConfig, second_moment: Tensor) -> RidgePrior:
    return RidgePrior(second_moment, config.second_moment_weight)


def _null_space(config: AlphaEditConfig, second_moment: Tensor) -> NullSpacePrior:
    return NullSpacePrior.of(second_moment, config.nullspace_threshold, config.l2)


METHODS: Mapping[EditorName, Method] = {
    "memit": Method(MemitConfig, MemitLoss, (LanguageModel.block_name,), _ridge),
    "pmet": Method(
        PmetConfig,
        PmetLoss,
        (LanguageModel.attention_projection_name, LanguageModel.down_projection_name),
        _ridge,
    ),
    "alphaedit": Method(
        AlphaEditConfig, MemitLoss, (LanguageModel.block_name,), _null_space
    ),
    "rome": Method(RomeConfig, MemitLoss, (LanguageModel.added_projection_name,)),
}


def method_of(config: MemitConfig) -> Method:
    """Return the editor that the configuration is for."""
    return METHODS[config.editor]


def target_modules(lm: LanguageModel, config: MemitConfig) -> list[str]:
    """Return the names of the method's places; targets are the last one's outputs.

    Raises
    ------
    ConfigurationError
        If the model's family does not have what the editor changes.
    """
    return [name(lm, config.layers[-1]) for name in method_of(config).places]


def priors_of(
    config: MemitConfig, second_moments: Mapping[str, Tensor]
) -> dict[str, Prior]:
    """Return the prior of every weight's solve.

    Parameters
    ----------
    config : MemitConfig
        The editor's.
    second_moments : mapping of str to Tensor
        ``C0 = E[k k^T]`` of each edited weight, ``(d_key, d_key)``, by its name.

    Raises
    ------
    ConfigurationError
        If the configuration does not fit a second moment; names the weight. If the
        editor writes one edit after another.
    """
    prior, found = method_of(config).prior, {}
    if prior is None:
        raise ConfigurationError(
            f"Expected an editor that solves for many edits at once, found "
            f"{config.editor.upper()}, which writes one after another. Make it with "
            "make_editor(), or use MEMIT."
        )
    for name, moment in second_moments.items():
        try:
            found[name] = prior(config, moment)
        except ConfigurationError as error:
            raise ConfigurationError(f"Prior of {name!r}: {error}") from None
    return found
