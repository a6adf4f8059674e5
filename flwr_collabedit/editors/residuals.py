"""How much of an edit a model has already, by the residual of its target (overlap).

Zheng et al. "CollabEdit: Towards Non-destructive Collaborative Knowledge Editing",
    ICLR 2025, section 4.2.1: a fact that others have written leaves a small residual.
    The paper reads the norm itself; it depends on the model, so here it is relative.
"""

from collections.abc import Sequence

from torch import Tensor
from torch.linalg import vector_norm

from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.keys import current_values
from flwr_collabedit.editors.targets import Targets
from flwr_collabedit.models.language_model import LanguageModel

_FLOOR = 1e-3


def relative_residuals(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    targets: Targets,
    config: MemitConfig,
    *,
    rows_per_batch: int = 128,
) -> Tensor:
    """Return how much of each edit is still to be written: 1 for all, 0 for nothing.

    ``||z - h|| / max(||z - h0||, 0.001 ||h0||)`` with ``h`` the current value on the
    model as it is now, ``z`` the target and ``h0`` the value on the model that the
    target was optimised on. An edit that is half written, in the right direction, has
    0.5; one that was overwritten by another may have more than 1.

    Parameters
    ----------
    lm : LanguageModel
        The model, with whatever deltas are to be seen already applied. It is not
        changed.
    requests : sequence of EditRequest
        ``n`` of them; may be empty.
    targets : Targets
        Of the same requests, in the same order, optimised on the *base* model (or any
        that has none of the edits). Targets that were optimised on ``lm`` itself have
        ``h = h0``, hence 1 whatever it knows: use `clamp_fractions` there.
    config : MemitConfig
        Tells where the targets live.
    rows_per_batch : int
        Texts run at once; changes the result by rounding only.

    Returns
    -------
    Tensor
        Shape ``(n,)``, float64, on the device of the model, finite and at least 0.

    Notes
    -----
    Where the base model knew the answer already ``z`` is ``h0``, and any distance
    would be infinitely many times zero: the floor, a thousandth of the value's norm,
    makes rounding small and a fact that was lost since large.
    """
    current = current_values(lm, requests, config, rows_per_batch=rows_per_batch)
    z, initial = targets.z.double(), targets.initial.double()
    scale = vector_norm(z - initial, dim=1).maximum(
        _FLOOR * vector_norm(initial, dim=1)
    )
    left: Tensor = vector_norm(z - current.double(), dim=1) / scale
    return left


def clamp_fractions(targets: Targets, config: MemitConfig) -> Tensor:
    """Return how far each target moved of the farthest that it may: in [0, 1].

    ``||z - h0|| / (clamp_norm_factor ||h0||)``, of targets optimised on the model as it
    is now: 0 where it answers already, so that nothing is to be written. It needs no
    other model, and no pass beyond that of the targets; but how far a fact that is
    absent moves depends on the hyperparameters, and may be less than 1.

    Parameters
    ----------
    targets : Targets
        ``n`` of them.
    config : MemitConfig
        The one they were optimised with.

    Returns
    -------
    Tensor
        Shape ``(n,)``, float64, on the device of the targets.
    """
    z, initial = targets.z.double(), targets.initial.double()
    limit = config.clamp_norm_factor * vector_norm(initial, dim=1)
    moved: Tensor = vector_norm(z - initial, dim=1) / limit
    return moved
