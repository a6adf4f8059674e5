"""Hyperparameters of MEMIT under our names, readable from the published JSON files.

Meng et al. "Mass-Editing Memory in a Transformer", ICLR 2023, sections 4 and 5; the
published files are ``hparams/MEMIT/*.json`` of kmeng01/memit.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from flwr_collabedit.editors.editor_config import (
    Count,
    EditorConfig,
    NonNegative,
    Positive,
)

# Published key -> our name: the one place where the two vocabularies meet.
PUBLISHED_NAMES: dict[str, str] = {
    "layers": "layers",
    "clamp_norm_factor": "clamp_norm_factor",
    "v_num_grad_steps": "num_gradient_steps",
    "v_lr": "learning_rate",
    "v_loss_layer": "loss_layer",
    "v_weight_decay": "weight_decay",
    "kl_factor": "kl_factor",
    "mom2_update_weight": "second_moment_weight",
    "mom2_dataset": "second_moment_corpus",
    "mom2_n_samples": "second_moment_samples",
    "mom2_dtype": "second_moment_dtype",
}
# Module names are decided by models/architectures.json; MEMIT itself never reads
# layer_selection and mom2_adjustment, and the model is the one that is given.
IGNORED_KEYS = frozenset(
    {
        "model_name",
        "rewrite_module_tmp",
        "layer_module_tmp",
        "mlp_module_tmp",
        "attn_module_tmp",
        "ln_f_module",
        "lm_head_module",
        "layer_selection",
        "mom2_adjustment",
    }
)


class MemitConfig(EditorConfig):
    """What MEMIT needs to know besides the model, the contexts and the requests.

    Defaults without another source are those published for GPT-2 XL.

    Attributes
    ----------
    editor, layers
        See `EditorConfig`; the target lives at the last layer.
    clamp_norm_factor : float
        ``||z - h0|| <= clamp_norm_factor * ||h0||``, > 0.
    num_gradient_steps : int
        Evaluations of a target's loss, >= 1; at most one update less is made.
    learning_rate : float
        Adam's step size for ``delta = z - h0``, > 0.
    loss_layer : int or None
        The block whose output the loss reads (``v_loss_layer``). Only the model's last
        one is supported, which ``None`` stands for.
    weight_decay : float
        Factor of ``||delta|| / ||h0||^2`` in the loss, >= 0.
    kl_factor : float
        Factor of the KL divergence on ``"{} is a"`` in the loss, >= 0.
    stop_loss : float
        An edit whose loss falls below it is finished; 0 switches this off. The default
        is the constant in MEMIT's code.
    second_moment_weight : float
        ``lambda`` in ``(lambda C0 + K K^T)^-1``, > 0. Published: 15,000 (GPT-J, the
        default) to 20,000 (GPT-2 XL); small models need far less.
    second_moment_corpus : str
        Name of the text that ``C0`` is estimated from.
    second_moment_samples : int
        Documents of that text to read, >= 1.
    second_moment_dtype : {"float32", "float64"}
        Precision in which keys enter the (float64) sums.
    second_moment_max_length : int
        Documents are cut to this many tokens, or to the model's positions if those are
        fewer, >= 1. Our default keeps models of 128k positions within memory.
    edits_per_batch : int
        Targets optimised as one tensor, >= 1. Changes speed and memory, not results.
    """

    published_names: ClassVar[Mapping[str, str]] = PUBLISHED_NAMES
    ignored_keys: ClassVar[frozenset[str]] = IGNORED_KEYS

    editor: Literal["memit"] = "memit"
    clamp_norm_factor: Positive = 0.75
    num_gradient_steps: Count = 20
    learning_rate: Positive = 0.5
    loss_layer: Annotated[int, Field(ge=0)] | None = None
    weight_decay: NonNegative = 0.5
    kl_factor: NonNegative = 0.0625
    stop_loss: NonNegative = 0.05
    second_moment_weight: Positive = 15_000.0
    second_moment_corpus: Annotated[str, Field(min_length=1)] = "wikipedia"
    second_moment_samples: Count = 100_000
    second_moment_dtype: Literal["float32", "float64"] = "float32"
    second_moment_max_length: Count = 1024
    edits_per_batch: Count = 32
