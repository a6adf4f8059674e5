"""All editors in one table: how each is configured and made.

``docs/adding_an_editor.md`` shows how to add one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from flwr_collabedit.algebra.priors import Priors
from flwr_collabedit.editor_names import (
    EditorName,
    check_exchanged,
    editor_of,
    keeps_targets,
)
from flwr_collabedit.editors.alpha_edit_config import AlphaEditConfig
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.editor import Editor
from flwr_collabedit.editors.editor_config import EditorConfig
from flwr_collabedit.editors.fine_tuning import FineTuningEditor
from flwr_collabedit.editors.fine_tuning_config import FineTuningConfig
from flwr_collabedit.editors.grace import GraceEditor, check_grace
from flwr_collabedit.editors.grace_config import GraceConfig
from flwr_collabedit.editors.hypernetwork_file import (
    TrainedHypernetwork,
    load_hypernetwork,
)
from flwr_collabedit.editors.malmen import MalmenEditor
from flwr_collabedit.editors.malmen_config import MalmenConfig
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.editors.mend import MendEditor
from flwr_collabedit.editors.mend_config import MendConfig
from flwr_collabedit.editors.methods import priors_of
from flwr_collabedit.editors.pmet_config import PmetConfig
from flwr_collabedit.editors.rome import RomeEditor
from flwr_collabedit.editors.rome_config import RomeConfig
from flwr_collabedit.editors.targets import check_model
from flwr_collabedit.errors import ConfigurationError, HypernetworkError
from flwr_collabedit.models.language_model import LanguageModel


@dataclass(frozen=True)
class EditorParts:
    """What editors are made from besides the model and the configuration.

    Parameters
    ----------
    contexts : ContextTemplates
        Of targets and keys.
    second_moments : callable
        Gives ``C0`` of each edited weight, ``(d_key, d_key)``, by its name; called by
        editors that need it only.
    hypernetwork : Path or None
        File of the trained network; read by editors that need it only.
    """

    contexts: ContextTemplates
    second_moments: Callable[[], Mapping[str, Tensor]]
    hypernetwork: Path | None = None


def _check_layers(lm: LanguageModel, config: EditorConfig) -> None:
    lm.check_layers(config.layers)


@dataclass(frozen=True)
class EditorKind:
    """What one editor is.

    Attributes
    ----------
    config : type
        Class of its configuration.
    make : callable
        Makes it from model, configuration and parts.
    check : callable
        Raises `ConfigurationError` unless the configuration fits the model.
    priors : callable or None
        Gives the prior of every edited weight's solve, where there is one for sums
        over the edits.
    """

    config: type[EditorConfig]
    make: Callable[[LanguageModel, Any, EditorParts], Editor]
    check: Callable[[LanguageModel, Any], None] = _check_layers
    priors: Callable[[LanguageModel, Any, EditorParts], Priors] | None = None


def _memit(lm: LanguageModel, config: MemitConfig, parts: EditorParts) -> MemitEditor:
    return MemitEditor(lm, config, parts.contexts, parts.second_moments())


def _grace(lm: LanguageModel, config: GraceConfig, _: EditorParts) -> GraceEditor:
    return GraceEditor(lm, config)


def _target_priors(
    lm: LanguageModel, config: MemitConfig, parts: EditorParts
) -> Priors:
    return priors_of(config, parts.second_moments())


def _rome(lm: LanguageModel, config: RomeConfig, parts: EditorParts) -> RomeEditor:
    moments = parts.second_moments() if config.adjust_keys else {}
    return RomeEditor(lm, config, parts.contexts, moments)


def _malmen(
    lm: LanguageModel, config: MalmenConfig, parts: EditorParts
) -> MalmenEditor:
    return MalmenEditor(lm, config, _hypernetwork(config, parts))


def _malmen_priors(
    lm: LanguageModel, config: MalmenConfig, parts: EditorParts
) -> Priors:
    return _malmen(lm, config, parts).priors


def _mend(lm: LanguageModel, config: MendConfig, parts: EditorParts) -> MendEditor:
    return MendEditor(lm, config, _hypernetwork(config, parts))


def _hypernetwork(config: EditorConfig, parts: EditorParts) -> TrainedHypernetwork:
    if parts.hypernetwork is None:
        raise HypernetworkError(
            f"Expected a hypernetwork's file for {config.editor.upper()}, found none. "
            "Train one with `collabedit train-editor`, and give its file."
        )
    return load_hypernetwork(parts.hypernetwork)


def _fine_tuning(
    lm: LanguageModel, config: FineTuningConfig, _: EditorParts
) -> FineTuningEditor:
    return FineTuningEditor(lm, config)


KINDS: Mapping[EditorName, EditorKind] = {
    "memit": EditorKind(MemitConfig, _memit, check_model, _target_priors),
    "pmet": EditorKind(PmetConfig, _memit, check_model, _target_priors),
    "alphaedit": EditorKind(AlphaEditConfig, _memit, check_model, _target_priors),
    "rome": EditorKind(RomeConfig, _rome, check_model),
    "grace": EditorKind(GraceConfig, _grace, check_grace),
    "malmen": EditorKind(MalmenConfig, _malmen, priors=_malmen_priors),
    "mend": EditorKind(MendConfig, _mend),
    "ft": EditorKind(FineTuningConfig, _fine_tuning),
}


def make_editor(lm: LanguageModel, config: EditorConfig, parts: EditorParts) -> Editor:
    """Return the editor that the configuration is for.

    Raises
    ------
    ConfigurationError
        If the configuration does not fit the model.
    """
    return KINDS[config.editor].make(lm, config, parts)


def check_config(lm: LanguageModel, config: EditorConfig) -> None:
    """Raise `ConfigurationError` unless the configuration fits the model."""
    KINDS[config.editor].check(lm, config)


def solve_priors(lm: LanguageModel, config: EditorConfig, parts: EditorParts) -> Priors:
    """Return the prior of every edited weight, for a server that sums statistics.

    Raises
    ------
    ConfigurationError
        If the editor is no function of sums over the edits.
    """
    check_exchanged(config.editor, "sums")
    priors = KINDS[config.editor].priors
    assert priors is not None  # of every editor that has sums
    return priors(lm, config, parts)


def target_config(config: EditorConfig) -> MemitConfig:
    """Return the configuration as one of an editor that keeps its targets.

    Raises
    ------
    ConfigurationError
        If its editor has no targets that could be kept or compared.
    """
    if not keeps_targets(config.editor):
        able = ", ".join(name for name in KINDS if keeps_targets(name))
        raise ConfigurationError(
            f"Expected an editor that keeps targets ({able}), found {config.editor!r}, "
            "of which there is nothing to compare. Use one of them, or presence "
            "'answer'."
        )
    return cast(MemitConfig, config)


def read_config(text: str) -> EditorConfig:
    """Return the configuration that ``to_json`` wrote, of the editor that it names.

    Raises
    ------
    ConfigurationError
        For an unknown editor, an unknown name or a value out of range.
    """
    return KINDS[editor_of(text)].config.from_json(text)
