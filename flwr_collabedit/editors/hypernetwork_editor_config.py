"""What the configurations of editors with a hypernetwork share."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from flwr_collabedit.editors.editor_config import Count, EditorConfig


class HypernetworkEditorConfig(EditorConfig):
    """What an editor needs to know besides the model and its trained hypernetwork.

    What the hypernetwork was trained with (which tokens it reads, how the loss is
    reduced) is in its file, and an edit follows it.

    Attributes
    ----------
    editor, layers
        See `EditorConfig`; those that the hypernetwork was trained for.
    hypernetwork : str
        Its fingerprint, which has to be that of the one that is loaded; a federation
        needs it, so that all clients use the same. Empty for whichever is given.
    rows_per_batch : int
        Texts run at once. Changes nothing but speed and memory, unless the
        hypernetwork was trained with the ``mean`` of each batch's losses.
    """

    published_names: ClassVar[Mapping[str, str]] = {
        "layers": "layers",
        "batch_size": "rows_per_batch",
    }

    hypernetwork: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    rows_per_batch: Count = 32
