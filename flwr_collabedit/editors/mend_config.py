"""Hyperparameters of MEND under our names.

Mitchell et al., "Fast Model Editing at Scale", ICLR 2022; published in ``config`` of
eric-mitchell/mend.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from flwr_collabedit.editors.editor_config import Count, EditorConfig


class MendConfig(EditorConfig):
    """What MEND needs to know besides the model and its trained hypernetwork.

    Attributes
    ----------
    editor, layers
        See `EditorConfig`; those that the hypernetwork was trained for.
    hypernetwork : str
        Its fingerprint, which has to be that of the one that is loaded. Empty for
        whichever is given.
    rows_per_batch : int
        Texts run at once. Changes nothing but speed and memory, unless the
        hypernetwork was trained with the ``mean`` of each batch's losses.
    """

    published_names: ClassVar[Mapping[str, str]] = {
        "layers": "layers",
        "batch_size": "rows_per_batch",
    }

    editor: Literal["mend"] = "mend"
    hypernetwork: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    rows_per_batch: Count = 32
