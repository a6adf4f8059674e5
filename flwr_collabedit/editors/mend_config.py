"""Hyperparameters of MEND under our names.

Mitchell et al., "Fast Model Editing at Scale", ICLR 2022; published in ``config`` of
eric-mitchell/mend.
"""

from typing import Literal

from flwr_collabedit.editors.hypernetwork_editor_config import HypernetworkEditorConfig


class MendConfig(HypernetworkEditorConfig):
    """What MEND needs to know: `HypernetworkEditorConfig`, and nothing of its own."""

    editor: Literal["mend"] = "mend"
