"""Hyperparameters for a model: published for its shape, a named set, or a file."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flwr_collabedit.editor_names import EditorName
from flwr_collabedit.editors.editor_config import EditorConfig
from flwr_collabedit.editors.kinds import KINDS, check_config
from flwr_collabedit.editors.published_sets import (
    HyperparameterSet,
    ModelShape,
    published_sets,
)
from flwr_collabedit.errors import ConfigurationError, nearest
from flwr_collabedit.models.language_model import LanguageModel

__all__ = ["hyperparameters_for", "published_sets"]


def hyperparameters_for(
    lm: LanguageModel,
    name_or_file: str | Path = "",
    *,
    editor: EditorName = "memit",
    **overrides: Any,
) -> EditorConfig:
    """Return an editor's configuration for a model, checked against the model.

    Parameters
    ----------
    lm : LanguageModel
        The model to edit.
    name_or_file : str or path
        A set's name, or a JSON file: a published one, a shipped set's form, or what
        ``EditorConfig.to_json`` wrote. Empty for what is published for a model of this
        family and these sizes, whatever it is called.
    editor : str
        Whose hyperparameters.
    **overrides
        Values under our names that replace or extend what was found.

    Raises
    ------
    ConfigurationError
        If nothing is published for the model, the name is unknown, the file cannot be
        read or is another editor's, or the layers do not fit the model.

    Examples
    --------
    >>> from flwr_collabedit.models.loading import load_language_model
    >>> hyperparameters_for(load_language_model("embedded")).layers
    (0, 1, 2)
    """
    known = [one for one in published_sets() if one.editor == editor]
    by_name = {one.name: one for one in known}
    kind = KINDS[editor].config
    if str(name_or_file) in by_name:
        found = by_name[str(name_or_file)]
    elif name_or_file:
        config = _from_file(Path(name_or_file), editor, by_name, overrides)
        check_config(lm, config)
        return config
    else:
        found = _fitting(lm, editor, known)
    where = f"the set {found.name!r}"
    config = kind.from_published(found.hyperparameters, where=where, **overrides)
    check_config(lm, config)
    return config


def _fitting(
    lm: LanguageModel, editor: EditorName, known: Iterable[HyperparameterSet]
) -> HyperparameterSet:
    shape = ModelShape.of(lm)
    for one in known:
        if one.model == shape:
            return one
    names = ", ".join(one.name for one in known)
    raise ConfigurationError(
        f"Expected a model that {editor.upper()} hyperparameters are published for "
        f"({names}); found {lm.name!r}, a {shape.model_type} of {shape.num_layers} "
        f"layers, {shape.hidden_size} wide, with keys of {shape.d_key}. Run "
        "`collabedit locate MODEL`, which finds the layers and writes a file, or give "
        "a set's name."
    )


def _from_file(
    path: Path,
    editor: EditorName,
    by_name: Mapping[str, HyperparameterSet],
    overrides: Mapping[str, Any],
) -> EditorConfig:
    content = _read(path, editor, by_name)
    where, kind = f"'{path}'", KINDS[editor].config
    named = content.get("editor", editor)
    if named != editor:
        raise ConfigurationError(
            f"Expected {editor.upper()} hyperparameters in {where}, found those of "
            f"{named!r}. Choose that editor or another file."
        )
    inner = content.get("hyperparameters")
    if isinstance(inner, dict):  # a shipped set's form
        content = inner
    if content.keys() <= kind.model_fields.keys():
        return kind.checked({**content, **overrides}, where)
    return kind.from_published(content, where=where, **overrides)


def _read(
    path: Path, editor: EditorName, by_name: Mapping[str, HyperparameterSet]
) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(
            f"Expected a set of {editor.upper()} hyperparameters or a JSON file; found "
            f"neither for '{path}'. {nearest(str(path), by_name)}"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"Expected JSON with hyperparameters in '{path}', but it cannot be read: "
            f"{error}. Write it as `collabedit locate` does."
        ) from error
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"Expected a JSON object with hyperparameters in '{path}', found a "
            f"{type(content).__name__}. Write it as `collabedit locate` does."
        )
    return content
