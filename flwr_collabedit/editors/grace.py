"""GRACE: facts in a codebook beside the weights, which stay what they are.

Hartvigsen et al. "Aging with GRACE: Lifelong Model Editing with Discrete Key-Value
Adaptors", NeurIPS 2023, https://arxiv.org/abs/2211.11031, Algorithm 1.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from flwr_collabedit.data.requests import EditRequest
from flwr_collabedit.editors.editor import EditResult, ModelEdit, Progress
from flwr_collabedit.editors.grace_config import GraceConfig
from flwr_collabedit.editors.grace_question import Question
from flwr_collabedit.editors.grace_radii import covering, with_entry
from flwr_collabedit.errors import ConfigurationError, NonFiniteOutputError
from flwr_collabedit.models.codebook import Codebook, label_of
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import applied_deltas, weight_shapes

# Keys nearer than this many rounding errors of their norm are one key.
_ROUNDING_ERRORS = 8


class GraceEditor:
    """Edits a model with GRACE: one entry of a codebook after another.

    A key is what the down projection reads at the last token of the prompt. If the
    nearest entry has the request's target as its answer and is near enough, its ball
    grows to hold the key, and that is all if the model then answers; else there is a
    new entry, whose value gradient descent finds, and balls with other answers give way
    (`flwr_collabedit.editors.grace_radii`).

    The published code goes on training the value of a ball that has grown, which may
    lose what it answered before; the paper does not. There only wrong answers are
    edited; here all requests are, so that no later ball can take a right one in.

    No weight changes: there is nothing that a server could add up or average. Parties
    can only keep their codebooks to themselves (the local-only strategy).

    Parameters
    ----------
    lm : LanguageModel
        The model; every call leaves it bit-identical.
    config : GraceConfig
        Hyperparameters.

    Raises
    ------
    ConfigurationError
        If the layer does not fit the model.
    """

    def __init__(self, lm: LanguageModel, config: GraceConfig) -> None:
        check_grace(lm, config)
        self._lm, self._config = lm, config
        [self._layer] = config.layers

    def edit(
        self,
        requests: Sequence[EditRequest],
        *,
        start: ModelEdit | None = None,
        progress: Progress | None = None,
    ) -> EditResult:
        """Return the codebook that answers ``requests``, see `Editor.edit`.

        The result's deltas are those of ``start``, on which the keys are taken.

        Raises
        ------
        ConfigurationError
            If the codebook of ``start`` belongs to another layer.
        NonFiniteOutputError
            If the loss of a request is not finite.
        """
        began = time.perf_counter()
        start = start or ModelEdit()
        book = self._started(start.codebook)
        with applied_deltas(self._lm, start.deltas):
            for number, request in enumerate(requests, start=1):
                question = Question.read(self._lm, self._layer, request)
                book = self._with(book, question, label_of(request.target_new))
                if progress:
                    progress(number)
        seconds = {"edit": time.perf_counter() - began}
        return EditResult(start.deltas, book, start.history, seconds=seconds)

    def _started(self, book: Codebook | None) -> Codebook:
        lm = self._lm
        module = lm.down_projection_name(self._layer)
        if book is None:
            [(d_value, d_key)] = weight_shapes(lm, [self._layer]).values()
            dtype = torch.promote_types(lm.dtype, torch.float32)
            like = torch.empty(0, dtype=dtype, device=lm.device)
            return Codebook.empty(module, d_key, d_value, like)
        if book.module != module:
            raise ConfigurationError(
                f"Expected a codebook of {module!r} to go on with, found one of "
                f"{book.module!r}. Edit the layer that it was begun for."
            )
        return book.to(lm.device)

    def _with(self, book: Codebook, question: Question, label: int) -> Codebook:
        key, radius = question.key, self._config.radius
        covered = covering(book, key, label, radius)
        if covered is not None and question.is_answered(self._lm, covered):
            return covered
        value = self._first_value(len(book), question)
        rounding = torch.finfo(self._lm.dtype).eps * float(key.norm())
        added = with_entry(book, key, value, label, radius, _ROUNDING_ERRORS * rounding)
        return self._trained(added, question)

    def _first_value(self, number: int, question: Question) -> Tensor:
        if self._config.value_start == "warm":
            return question.output
        drawn = torch.Generator().manual_seed(self._config.seed + number)
        return torch.rand(len(question.output), generator=drawn).to(question.output)

    def _trained(self, book: Codebook, question: Question) -> Codebook:
        """Return the codebook with its last value fitted to the question."""
        fixed, value = book.values[:-1], book.values[-1:].clone().requires_grad_()
        adam = torch.optim.Adam([value], self._config.learning_rate)
        for _ in range(self._config.num_gradient_steps):
            with torch.enable_grad():
                current = replace(book, values=torch.cat([fixed, value]))
                logits = question.logits(self._lm, current)
                loss = cross_entropy(logits, question.target_ids)
            if not loss.isfinite():
                raise NonFiniteOutputError(
                    f"Expected a finite loss for case {question.case_id!r}, found "
                    f"{loss.item()}. Take a lower learning rate, or load the model in "
                    "float32."
                )
            if loss < self._config.stop_loss:
                break
            [value.grad] = torch.autograd.grad(loss, value)
            adam.step()
        return replace(book, values=torch.cat([fixed, value.detach()]))


def check_grace(lm: LanguageModel, config: GraceConfig) -> None:
    """Raise :class:`ConfigurationError` unless ``config`` fits the model."""
    lm.check_layers(config.layers)
    if config.layers[0] == lm.num_layers - 1:
        raise ConfigurationError(
            f"Expected a layer below {config.layers[0]}, the last block of "
            f"{lm.name!r}. Attention above it has to carry the value from the prompt "
            "to the later tokens of the target."
        )
