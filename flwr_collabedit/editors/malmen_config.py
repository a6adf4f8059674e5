"""Hyperparameters of MALMEN under our names.

Tan, Zhang and Fu, "Massive Editing for Large Language Models via Meta Learning", ICLR
2024; published in ``config`` of ChenmienTan/malmen.
"""

from typing import Literal

from flwr_collabedit.editors.hypernetwork_editor_config import HypernetworkEditorConfig

Normalizer = Literal["frozen", "running"]


class MalmenConfig(HypernetworkEditorConfig):
    """What MALMEN needs to know.

    Attributes
    ----------
    editor, layers, hypernetwork, rows_per_batch
        See `HypernetworkEditorConfig`.
    normalizer : {"frozen", "running"}
        Whether the hypernetwork's input statistics stay as they were at the end of its
        training, or go on with the edits at hand, as in the published code: then the
        edits of a client depend on those beside them, and the sums of clients are not
        those of all edits. The file never changes.
    """

    editor: Literal["malmen"] = "malmen"
    normalizer: Normalizer = "frozen"
