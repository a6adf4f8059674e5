"""The editors by name, and what of each a federation can merge.

A server reads no more of an editor than this: it has no model and solves no targets.
"""

import json
from collections.abc import Mapping
from typing import Literal, get_args

from flwr_collabedit.errors import ConfigurationError, nearest

EditorName = Literal[
    "memit", "pmet", "alphaedit", "malmen", "rome", "ft", "mend", "grace"
]
Exchanged = Literal["sums", "deltas", "vectors", "nothing"]

_EXCHANGED: Mapping[EditorName, tuple[Exchanged, ...]] = {
    "memit": ("sums", "deltas", "vectors", "nothing"),
    "pmet": ("sums", "deltas", "vectors", "nothing"),
    "alphaedit": ("sums", "deltas", "nothing"),
    "malmen": ("sums", "deltas", "nothing"),
    "rome": ("deltas", "nothing"),
    "ft": ("deltas", "nothing"),
    "mend": ("deltas", "nothing"),
    "grace": ("nothing",),
}
_NEEDS: Mapping[Exchanged, str] = {
    "sums": "is no function of sums over the edits",
    "deltas": "changes no weight",
    "vectors": "has no mediator vectors that another party could write",
}
_STRATEGIES: Mapping[Exchanged, str] = {
    "sums": "CollabEdit",
    "deltas": "EditAvg, Simple-Average, Task-Arithmetic or TIES",
    "vectors": "FedEdit",
    "nothing": "local-only, where every party edits a model of its own",
}


def keeps_targets(editor: EditorName) -> bool:
    """Return whether an editor optimises targets apart from the solve.

    Such targets are kept while the model below them changes, so that layers can be
    measured one after another and others can write what one party optimised.
    """
    return editor in ("memit", "pmet", "alphaedit")


def needs_hypernetwork(editor: EditorName) -> bool:
    """Return whether an editor works with a network that was trained for it."""
    return editor in ("malmen", "mend")


def editor_of(hyperparameters: str) -> EditorName:
    """Return the editor that a configuration's JSON names, MEMIT if it names none.

    Raises
    ------
    ConfigurationError
        For an unknown editor.
    """
    editor = json.loads(hyperparameters).get("editor", "memit")
    if editor not in get_args(EditorName):
        raise ConfigurationError(
            f"Unknown editor {editor!r} in the hyperparameters. "
            f"{nearest(editor, get_args(EditorName))} Install the same "
            "flwr-collabedit on every party."
        )
    return editor  # type: ignore[no-any-return]  # checked above


def check_exchanged(editor: EditorName, exchanged: Exchanged) -> None:
    """Check that what a strategy exchanges can be had from an editor.

    Parameters
    ----------
    editor : str
        Its name.
    exchanged : {"sums", "deltas", "vectors", "nothing"}
        Sums over the edits (CollabEdit), solved weight updates (the strategies that
        merge them), mediator vectors (FedEdit), or nothing.

    Raises
    ------
    ConfigurationError
        Naming the strategies that there are for the editor.
    """
    possible = _EXCHANGED[editor]
    if exchanged not in possible:
        others = "; ".join(_STRATEGIES[one] for one in possible)
        raise ConfigurationError(
            f"{_STRATEGIES[exchanged]} cannot merge edits of {editor.upper()}, which "
            f"{_NEEDS[exchanged]}. Use {others}."
        )
