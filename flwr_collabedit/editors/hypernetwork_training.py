"""Training of a hypernetwork: batch after batch of edits that it is to do well.

Tan, Zhang and Fu, "Massive Editing for Large Language Models via Meta Learning", ICLR
2024. Every step starts from the base model.
"""

import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.editors.hypernetwork import Hypernetwork
from flwr_collabedit.editors.hypernetwork_config import (
    HypernetworkConfig,
    TrainingConfig,
)
from flwr_collabedit.editors.hypernetwork_data import EditGradients, MetaBatches
from flwr_collabedit.editors.hypernetwork_file import (
    HypernetworkCard,
    TrainedHypernetwork,
    load_training,
    save_hypernetwork,
)
from flwr_collabedit.editors.meta_step import MetaLoss, meta_backward
from flwr_collabedit.errors import HypernetworkError
from flwr_collabedit.models.fingerprint import fingerprint
from flwr_collabedit.models.language_model import LanguageModel

Progress = Callable[[int, int], None]


class HypernetworkTraining:
    """A training that can be interrupted; it goes on to the same bytes.

    Parameters
    ----------
    lm : LanguageModel
        The base model; it is left bit-identical.
    layers : sequence of int
        The edited layers.
    cases : sequence of EvaluationCase
        Training facts, see `flwr_collabedit.editors.hypernetwork_data.MetaBatches`.
    config : HypernetworkConfig
        The network.
    training : TrainingConfig
        How it is trained.

    Raises
    ------
    ConfigurationError
        If the facts do not make a batch.
    """

    def __init__(
        self,
        lm: LanguageModel,
        layers: Sequence[int],
        cases: Sequence[EvaluationCase],
        config: HypernetworkConfig,
        training: TrainingConfig,
    ) -> None:
        self._lm, self._training = lm, training
        self._batches = MetaBatches(lm, cases, training)
        self._gradients = EditGradients(lm, config, cases)
        self._card = HypernetworkCard(
            model=lm.name,
            fingerprint=fingerprint(lm, layers),
            layers=tuple(layers),
            config=config,
            training=training,
            data=_digest(cases),
        )
        self._network = Hypernetwork(config, seed=training.seed).to(lm.device)
        self._adam = _adam(self._network, training)
        self.num_steps, self._is_whole = 0, True

    @property
    def result(self) -> TrainedHypernetwork:
        """The hypernetwork as it is now."""
        card = self._card.model_copy(update={"num_steps": self.num_steps})
        return TrainedHypernetwork(self._network, card)

    def run(
        self,
        checkpoint: Path | None = None,
        *,
        save_every_s: float = 30.0,
        progress: Progress | None = None,
    ) -> TrainedHypernetwork:
        """Train to the end.

        Parameters
        ----------
        checkpoint : Path or None
            File that the training is written to now and then, and when it is
            interrupted.
        save_every_s : float
            Seconds between two writings.
        progress : callable or None
            Called with the steps done and of all.
        """
        due = time.monotonic() + save_every_s
        try:
            while self.num_steps < self._training.num_steps:
                self.step()
                if progress is not None:
                    progress(self.num_steps, self._training.num_steps)
                if checkpoint is not None and time.monotonic() >= due:
                    self.save(checkpoint)
                    due = time.monotonic() + save_every_s
        except KeyboardInterrupt:
            if checkpoint is not None and self._is_whole:
                self.save(checkpoint)
            raise
        return self.result

    def step(self) -> MetaLoss:
        """Do one step and return the loss before it."""
        training = self._training
        batch = self._batches.batch(self.num_steps)
        pairs = self._gradients(batch.requests)
        before = {name: one.clone() for name, one in self._network.named_buffers()}
        try:
            for name, pair in pairs.items():
                self._network.observe(name, *pair)
            self._adam.zero_grad()
            loss = meta_backward(
                self._lm,
                self._network,
                pairs,
                batch,
                locality_weight=training.locality_weight,
            )
            self._clip()
        except BaseException:
            # So that a training which is interrupted here is saved as before the step.
            self._network.load_state_dict(before, strict=False)
            raise
        share = min(1.0, 2 * (1 - self.num_steps / training.num_steps))
        for group in self._adam.param_groups:
            group["lr"] = share * group["initial_lr"]
        self._is_whole = False
        self._adam.step()
        self.num_steps += 1
        self._is_whole = True
        return loss

    def save(self, path: Path) -> None:
        """Write network and optimiser, so that `resume` goes on from here."""
        state = {
            f"{name}/{key}": value
            for name, parameter in self._network.named_parameters()
            for key, value in self._adam.state[parameter].items()
        }
        save_hypernetwork(path, self.result, state)

    def resume(self, path: Path) -> None:
        """Go on from what `save` wrote.

        Raises
        ------
        HypernetworkError
            If it is damaged, or a training of something else.
        """
        found, state = load_training(path)
        expected = self._card.model_copy(update={"num_steps": found.card.num_steps})
        for name in HypernetworkCard.model_fields:
            if name != "model" and getattr(found.card, name) != getattr(expected, name):
                raise HypernetworkError(
                    f"Expected in '{path}' a training with {name} "
                    f"{_short(getattr(expected, name))}, found "
                    f"{_short(getattr(found.card, name))}. Give the options that it "
                    "was begun with, or another file."
                )
        self._network.load_state_dict(found.network.state_dict())
        for name, parameter in self._network.named_parameters():
            own = {
                key.removeprefix(f"{name}/"): value
                for key, value in state.items()
                if key.startswith(f"{name}/")
            }
            if own:
                self._adam.state[parameter] = _moved(own, parameter)
        self.num_steps = found.card.num_steps

    def _clip(self) -> None:
        norm = clip_grad_norm_(
            self._network.parameters(), self._training.max_gradient_norm
        )
        if not norm.isfinite():
            raise HypernetworkError(
                f"Expected a finite gradient of the hypernetwork at step "
                f"{self.num_steps}, found {norm.item()}. Train with a smaller initial "
                "or learning rate."
            )


def _adam(network: Hypernetwork, training: TrainingConfig) -> torch.optim.Adam:
    scalars = [network.log_rates, network.log_ridges]
    others = list(network.nets.parameters())
    rates = training.learning_rate, training.scalar_learning_rate
    return torch.optim.Adam(
        [
            {"params": parameters, "lr": rate, "initial_lr": rate}
            for parameters, rate in zip((others, scalars), rates, strict=True)
        ]
    )


def _moved(state: dict[str, Tensor], parameter: Tensor) -> dict[str, Tensor]:
    # Adam keeps its count of steps on the CPU.
    return {
        key: value if key == "step" else value.to(parameter.device)
        for key, value in state.items()
    }


def _digest(cases: Sequence[EvaluationCase]) -> str:
    digest = sha256()
    for case in cases:
        digest.update(case.model_dump_json().encode())
    return digest.hexdigest()


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
