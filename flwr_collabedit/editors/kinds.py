"""All editors in one table: how each is configured and made.

``docs/adding_an_editor.md`` shows how to add one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from flwr_collabedit.editor_names import EditorName, editor_of
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.editor import Editor
from flwr_collabedit.editors.editor_config import EditorConfig
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.editors.pmet_config import PmetConfig
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
    """

    contexts: ContextTemplates
    second_moments: Callable[[], Mapping[str, Tensor]]


@dataclass(frozen=True)
class EditorKind:
    """What one editor is.

    Attributes
    ----------
    config : type
        Class of its configuration.
    make : callable
        Makes it from model, configuration and parts.
    """

    config: type[EditorConfig]
    make: Callable[[LanguageModel, Any, EditorParts], Editor]


def _memit(lm: LanguageModel, config: MemitConfig, parts: EditorParts) -> MemitEditor:
    return MemitEditor(lm, config, parts.contexts, parts.second_moments())


KINDS: Mapping[EditorName, EditorKind] = {
    "memit": EditorKind(MemitConfig, _memit),
    "pmet": EditorKind(PmetConfig, _memit),
}


def make_editor(lm: LanguageModel, config: EditorConfig, parts: EditorParts) -> Editor:
    """Return the editor that the configuration is for.

    Raises
    ------
    ConfigurationError
        If the configuration does not fit the model.
    """
    return KINDS[config.editor].make(lm, config, parts)


def read_config(text: str) -> EditorConfig:
    """Return the configuration that ``to_json`` wrote, of the editor that it names.

    Raises
    ------
    ConfigurationError
        For an unknown editor, an unknown name or a value out of range.
    """
    return KINDS[editor_of(text)].config.from_json(text)
