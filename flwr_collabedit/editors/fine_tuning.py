"""Fine-tuning of down projections on the facts: what editors are compared with.

As in Zhu et al. "Modifying Memories in Transformer Models", 2020 (the bound, FT-L), and
the code of Meng et al., NeurIPS 2022 and ICLR 2023 (FT-W's weight decay).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.editor import EditResult, ModelEdit, Progress
from flwr_collabedit.editors.fine_tuning_config import FineTuningConfig
from flwr_collabedit.editors.label_gradients import LabelRow, label_logits, label_row
from flwr_collabedit.editors.layer_passes import Clock
from flwr_collabedit.editors.start import start_deltas
from flwr_collabedit.editors.target_loss import plus
from flwr_collabedit.errors import NonFiniteOutputError, shorten
from flwr_collabedit.models.hooks import replace_output, trace
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import applied_deltas, read_weight, weight_shapes


class FineTuningEditor:
    """Fine-tunes a model and leaves it as it was: the result is a delta.

    Adam minimises the mean over the requests of the mean over their target tokens of
    ``-log p(token)``, in bare prompts, by what is added to the weights of the edited
    layers: a sum of its own beside what each module puts out, so that no parameter of
    the model needs a gradient or is written. That sum is float32 where the model is
    narrower, and is rounded with the weight only when the edit is applied.

    Many requests are mini-batches, in the order given; one request alone is a batch of
    one. The outcome is no function of sums over the edits: parties of a federation can
    merge their deltas (EditAvg, Simple-Average, Task-Arithmetic, TIES), but CollabEdit
    has nothing to merge.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    config : FineTuningConfig
        Hyperparameters.

    Raises
    ------
    ConfigurationError
        If the layers do not fit the model.
    UnsupportedArchitectureError
        If a weight is not of an unquantised module.
    """

    def __init__(self, lm: LanguageModel, config: FineTuningConfig) -> None:
        weight_shapes(lm, config.layers)  # raises
        self._lm, self._config = lm, config

    def edit(
        self,
        requests: Sequence[EditRequest],
        *,
        start: ModelEdit | None = None,
        progress: Progress | None = None,
    ) -> EditResult:
        """Return the deltas after training on ``requests``; the model is not changed.

        Parameters
        ----------
        requests, start, progress
            See `flwr_collabedit.editors.editor.Editor.edit`; the one phase is
            ``train``, and a request is finished when the loss of its batch is low.
            ``max_change`` bounds what this edit adds to ``start``.

        Raises
        ------
        RequestFormatError
            If a request cannot be written as tokens or is too long.
        NonFiniteOutputError
            If the loss of a batch is not finite.
        """
        clock, lm = Clock(), self._lm
        is_at_once = self._config.objective == "prompt-last"
        rows = [label_row(lm, request, at_once=is_at_once) for request in requests]
        deltas = start_deltas(lm, self._config.layers, start)
        if rows:
            ids = [request.case_id for request in requests]
            with clock.phase("train"), applied_deltas(lm, deltas):
                for name, added in self._train(rows, ids, progress).items():
                    deltas[name] = deltas[name] + added
        return EditResult(deltas, seconds=clock.seconds)

    def _train(
        self,
        rows: Sequence[LabelRow],
        case_ids: Sequence[int | str],
        progress: Progress | None,
    ) -> dict[str, Tensor]:
        """Return what is added to each weight, ``(d_value, d_key)``, float64."""
        config, size = self._config, self._config.requests_per_batch
        batches = [slice(begin, begin + size) for begin in range(0, len(rows), size)]
        weights = [self._lm.weight_name(layer) for layer in config.layers]
        before = {name: read_weight(self._lm.model, name) for name in weights}
        dtype = torch.promote_types(self._lm.dtype, torch.float32)
        added = {
            name: torch.zeros_like(one, dtype=dtype) for name, one in before.items()
        }
        adam = torch.optim.Adam(added.values(), lr=config.learning_rate)
        most_finished = 0
        for _ in range(config.num_steps):
            total, finished = 0.0, 0
            for batch in batches:
                loss, gradients = self._loss(rows[batch], added)
                _check_finite(loss, case_ids[batch])
                total += loss * len(rows[batch])
                if loss < config.stop_loss:
                    finished += len(rows[batch])
                    continue
                for name, one in added.items():
                    decay = config.weight_decay * (before[name] + one)
                    one.grad = gradients[name] + decay
                adam.step()
                self._bound(added)
            if progress and finished > most_finished:
                progress(most_finished := finished)
            if total / len(rows) < config.stop_loss:
                break
        if progress and most_finished < len(rows):
            progress(len(rows))
        wide = {name: one.to(self._lm.device).double() for name, one in added.items()}
        self._bound(wide)  # to the bound itself, not to the nearest float32
        return wide

    def _loss(
        self, rows: Sequence[LabelRow], added: Mapping[str, Tensor]
    ) -> tuple[float, dict[str, Tensor]]:
        """Return the batch's loss and its gradient in each weight."""
        leaves = {name: one.detach().requires_grad_() for name, one in added.items()}
        with torch.enable_grad(), _beside(self._lm, leaves):
            logits, targets = label_logits(self._lm, rows)
            share = torch.tensor(
                [
                    1 / (len(rows) * len(row.target_ids))
                    for row in rows
                    for _ in row.target_ids
                ]
            )
            each = cross_entropy(logits, targets, reduction="none")
            loss = (each * share.to(each)).sum()
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        return loss.item(), dict(zip(leaves, gradients, strict=True))

    def _bound(self, added: Mapping[str, Tensor]) -> None:
        limit = self._config.max_change
        if limit:
            for one in added.values():
                one.clamp_(-limit, limit)


@contextmanager
def _beside(lm: LanguageModel, added: Mapping[str, Tensor]) -> Iterator[None]:
    """Let weights act as if the tensors, ``(d_value, d_key)``, were added to them."""
    modules = {name: name.removesuffix(".weight") for name in added}

    def change(name: str, written: Tensor) -> Tensor:
        key, delta = keys[modules[name]], added[name]
        return plus(written, key.to(delta.dtype) @ delta.T)

    with ExitStack() as hooks:
        keys = hooks.enter_context(trace(lm.model, list(modules.values()), inputs=True))
        for name, module in modules.items():
            hooks.enter_context(replace_output(lm.model, module, partial(change, name)))
        yield


def _check_finite(loss: float, case_ids: Sequence[int | str]) -> None:
    if not math.isfinite(loss):
        raise NonFiniteOutputError(
            f"Expected a finite loss, found {loss} for a batch of case "
            f"{shorten(case_ids)}. Lower the learning rate, load the model again, or "
            "load it in float32."
        )
