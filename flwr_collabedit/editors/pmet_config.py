"""Hyperparameters of PMET under our names, readable from the published JSON files.

Li et al. "PMET: Precise Model Editing in a Transformer", AAAI 2024,
https://arxiv.org/abs/2308.08742; the published files are ``edit/hparams/PMET/*.json``
of xpq-tech/PMET.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from flwr_collabedit.editors.config import IGNORED_KEYS, PUBLISHED_NAMES, MemitConfig
from flwr_collabedit.editors.editor_config import Count, NonNegative, Positive


class PmetConfig(MemitConfig):
    """What PMET needs to know: MEMIT's hyperparameters and those of its own loss.

    Defaults without another source are those published for GPT-J.

    Attributes
    ----------
    editor : {"pmet"}
        Tells the configuration's JSON from MEMIT's.
    clamp_norm_factor, learning_rate, weight_decay
        As MEMIT's, for each of the two deltas by itself.
    nll_factor : float
        Factor of the target's negative log likelihood in the loss, > 0
        (``nll_loss_factor``).
    answered_nll_factor : float
        ``nll_factor`` is multiplied by it in the step after an evaluation in which
        every target token was the model's first choice in every context, > 0. The
        default is the constant in PMET's code.
    stop_divergence : float or None
        An edit that is answered so, and whose KL term (its factor included) is at most
        this, is finished; ``None`` switches this off. The default is the constant in
        PMET's code.
    """

    published_names: ClassVar[Mapping[str, str]] = {
        **PUBLISHED_NAMES,
        "nll_loss_factor": "nll_factor",
    }
    # PMET's code can write the attention's output matrix too; its published files and
    # this package write the down projection alone.
    ignored_keys: ClassVar[frozenset[str]] = IGNORED_KEYS | {"rewrite_module_tmps"}

    editor: Literal["pmet"] = "pmet"  # type: ignore[assignment]  # tells the classes apart
    num_gradient_steps: Count = 30
    learning_rate: Positive = 0.2
    kl_factor: NonNegative = 1.0
    second_moment_weight: Positive = 6000.0
    nll_factor: Positive = 1.0
    answered_nll_factor: Positive = 0.1
    stop_divergence: NonNegative | None = 0.01
