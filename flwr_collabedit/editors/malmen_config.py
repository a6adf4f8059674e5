"""Hyperparameters of MALMEN under our names.

Tan, Zhang and Fu, "Massive Editing for Large Language Models via Meta Learning", ICLR
2024; published in ``config`` of ChenmienTan/malmen.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from flwr_collabedit.editors.editor_config import Count, EditorConfig

Normalizer = Literal["frozen", "running"]


class MalmenConfig(EditorConfig):
    """What MALMEN needs to know besides the model and its trained hypernetwork.

    What the hypernetwork was trained with (which tokens it reads, how the loss is
    reduced) is in its file, and an edit follows it.

    Attributes
    ----------
    editor, layers
        See `EditorConfig`; those that the hypernetwork was trained for.
    hypernetwork : str
        Its fingerprint, which has to be that of the one that is loaded; a federation
        needs it, so that all clients use the same. Empty for whichever is given.
    normalizer : {"frozen", "running"}
        Whether the hypernetwork's input statistics stay as they were at the end of its
        training, or go on with the edits at hand, as in the published code: then the
        edits of a client depend on those beside them, and the sums of clients are not
        those of all edits. The file never changes.
    rows_per_batch : int
        Texts run at once. Changes nothing but speed and memory, unless the
        hypernetwork was trained with the ``mean`` of each batch's losses.
    """

    published_names: ClassVar[Mapping[str, str]] = {
        "layers": "layers",
        "batch_size": "rows_per_batch",
    }

    editor: Literal["malmen"] = "malmen"
    hypernetwork: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    normalizer: Normalizer = "frozen"
    rows_per_batch: Count = 32
