"""Hyperparameters of AlphaEdit under our names, readable from the published JSON files.

Fang et al. "AlphaEdit: Null-Space Constrained Knowledge Editing for Language Models",
ICLR 2025, https://arxiv.org/abs/2410.02355; the published files are
``hparams/AlphaEdit/*.json`` of jianghoucheng/AlphaEdit.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from flwr_collabedit.editors.config import IGNORED_KEYS, PUBLISHED_NAMES, MemitConfig
from flwr_collabedit.editors.editor_config import Positive

_MEMITS_WEIGHT = "mom2_update_weight"


class AlphaEditConfig(MemitConfig):
    """What AlphaEdit needs to know: MEMIT's hyperparameters and those of its own solve.

    Targets, keys and passes are MEMIT's; the solve is
    `flwr_collabedit.algebra.projection.NullSpacePrior`. AlphaEdit's ``cache_c``, which
    its code adds to in every batch, is the history ``dynamic-covariance`` with
    ``beta_0 = beta_1 = 1``. That code measures the cached keys once more on the edited
    model, after the batch; here they are the keys that the batch was solved from, which
    a server has. With the schedule ``synchronous`` they are the same: a layer's keys
    depend on the layers below, which were written when they were measured.

    Attributes
    ----------
    editor : {"alphaedit"}
        Tells the configuration's JSON from MEMIT's.
    nullspace_threshold : float
        Eigenvalues of ``C0`` below it count as zero, > 0. In the units of a squared
        key: to be chosen for each model, see
        `flwr_collabedit.algebra.projection.null_space_basis`.
    l2 : float
        Weight of the squared update in the solve, > 0 (``L2``).
    second_moment_weight : None
        There is no ``lambda``: published files have MEMIT's, and AlphaEdit's code does
        not read it.
    """

    published_names: ClassVar[Mapping[str, str]] = {
        **{key: ours for key, ours in PUBLISHED_NAMES.items() if key != _MEMITS_WEIGHT},
        "nullspace_threshold": "nullspace_threshold",
        "L2": "l2",
    }
    ignored_keys: ClassVar[frozenset[str]] = IGNORED_KEYS | {_MEMITS_WEIGHT}

    editor: Literal["alphaedit"] = "alphaedit"  # type: ignore[assignment]  # tells the classes apart
    nullspace_threshold: Positive = 0.02
    l2: Positive = 10.0
    second_moment_weight: None = None  # type: ignore[assignment]  # it has none
