"""A hypernetwork on disk, with what it was made for: a safetensors file.

The tensors of the network stand under ``network/``, those of an unfinished training's
optimiser under ``optimizer/``; a `HypernetworkCard` is JSON under the metadata's key
``card``. Neither time nor place is in it, so that equal trainings give equal bytes.
"""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from flwr_collabedit.algebra.priors import RidgePrior
from flwr_collabedit.editors.hypernetwork import Hypernetwork
from flwr_collabedit.editors.hypernetwork_config import (
    FormName,
    HypernetworkConfig,
    TrainingConfig,
)
from flwr_collabedit.errors import HypernetworkError
from flwr_collabedit.files import replacing
from flwr_collabedit.models.fingerprint import fingerprint
from flwr_collabedit.models.language_model import LanguageModel

_NETWORK, _OPTIMIZER, _CARD = "network/", "optimizer/", "card"


class HypernetworkCard(BaseModel):
    """What a hypernetwork was made for, and how far it is trained.

    Attributes
    ----------
    model : str
        What the model was loaded as; told to readers only.
    fingerprint : str
        Of the model and its edited weights.
    layers : tuple of int
        The edited layers.
    config : HypernetworkConfig
        Sizes, and what it reads.
    training : TrainingConfig
        How it is trained.
    data : str
        SHA-256 of the training facts.
    num_steps : int
        Training steps done.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    model: str
    fingerprint: str
    layers: tuple[int, ...]
    config: HypernetworkConfig
    training: TrainingConfig = TrainingConfig()
    data: str = ""
    num_steps: int = 0


@dataclass(frozen=True, eq=False)
class TrainedHypernetwork:
    """A hypernetwork and its card."""

    network: Hypernetwork
    card: HypernetworkCard

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the card and all tensors: equal where edits are."""
        digest = sha256(self.card.model_dump_json().encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def priors(self) -> dict[str, RidgePrior]:
        """Return ``lambda I`` of every weight: what a server merges MALMEN with."""
        return {
            name: RidgePrior(
                torch.eye(d_key, dtype=torch.float64),
                float(self.network.ridge(name).detach()),
            )
            for name, (_, d_key) in self.card.config.weights.items()
        }

    def network_on(self, lm: LanguageModel) -> Hypernetwork:
        """Return a copy of the network on the device of the model."""
        return deepcopy(self.network).to(lm.device)

    def check_count(self, num_edits: int) -> None:
        """Raise unless it has learned to edit so many facts at once.

        Raises
        ------
        HypernetworkError
            If there are more than any batch of its training had.
        """
        most = self.card.training.edits_per_step
        if num_edits > most:
            raise HypernetworkError(
                f"Expected at most {most} facts at once, for which the hypernetwork "
                f"was trained, found {num_edits}. Edit them in several rounds, or "
                f"train it with --batch {num_edits}."
            )

    def check(
        self,
        lm: LanguageModel,
        layers: Sequence[int],
        form: FormName,
        *,
        expected: str = "",
    ) -> None:
        """Raise unless it can edit these layers of the model, which is not edited yet.

        Parameters
        ----------
        lm, layers, form
            The model, its edited layers, and what the editor makes of the output.
        expected : str
            The fingerprint that all parties are to have; empty for any.

        Raises
        ------
        HypernetworkError
            If it is of other layers, another model or another editor, untrained, or
            not the one that is expected.
        """
        card = self.card
        if card.config.form != form:
            raise HypernetworkError(
                f"Expected a hypernetwork trained for {form}, found one for "
                f"{card.config.form}. Train one for this editor (`collabedit "
                "train-editor --editor`)."
            )
        if card.layers != tuple(layers):
            raise HypernetworkError(
                f"Expected a hypernetwork for layers {tuple(layers)}, found one for "
                f"{card.layers}. Edit those layers, or train another one."
            )
        if card.num_steps < 1:
            raise HypernetworkError(
                "Expected a trained hypernetwork, found one after 0 steps. Train it "
                "with `collabedit train-editor`."
            )
        if expected not in ("", self.fingerprint):
            raise HypernetworkError(
                f"Expected the hypernetwork {expected[:12]} that the hyperparameters "
                f"name, found {self.fingerprint[:12]}. Give every party a copy of one "
                "file."
            )
        if fingerprint(lm, layers) != card.fingerprint:
            raise HypernetworkError(
                f"Expected a hypernetwork for {lm.name!r}, found one for other weights "
                f"or another tokenizer (trained on {card.model!r}). Load the model "
                "that it was trained on, or train another one."
            )


def save_hypernetwork(
    path: Path,
    trained: TrainedHypernetwork,
    optimizer: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a hypernetwork, whole or not at all.

    Parameters
    ----------
    path : Path
        The file; its folder is made.
    trained : TrainedHypernetwork
        What to write.
    optimizer : mapping of str to Tensor or None
        The optimiser's state, where the training is to go on.
    """
    tensors = {
        **{_NETWORK + k: v for k, v in trained.network.state_dict().items()},
        **{_OPTIMIZER + k: v for k, v in (optimizer or {}).items()},
    }
    with replacing(path) as draft:
        save_file(
            {name: one.detach().cpu().contiguous() for name, one in tensors.items()},
            draft,
            metadata={_CARD: trained.card.model_dump_json()},
        )


def load_hypernetwork(path: Path) -> TrainedHypernetwork:
    """Return the hypernetwork of a file, on the CPU.

    Raises
    ------
    HypernetworkError
        If there is none, or it is damaged or of another version.
    """
    return load_training(path)[0]


def load_training(path: Path) -> tuple[TrainedHypernetwork, dict[str, Tensor]]:
    """Return the hypernetwork of a file, and the optimiser's state if it has one.

    Raises
    ------
    HypernetworkError
        As for `load_hypernetwork`.
    """
    if not path.is_file():
        raise HypernetworkError(
            f"Expected a hypernetwork at '{path}', found no file. Train one with "
            "`collabedit train-editor`."
        )
    try:
        with safe_open(path, framework="pt") as file:
            card = HypernetworkCard.model_validate(
                json.loads((file.metadata() or {}).get(_CARD, "null"))
            )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        network = Hypernetwork(card.config)
        network.load_state_dict(_of(tensors, _NETWORK))
        if not all(one.isfinite().all() for one in tensors.values()):
            raise ValueError("it holds NaN or infinity")
    except (SafetensorError, ValidationError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise HypernetworkError(
            f"Expected a hypernetwork in '{path}', but it cannot be read: {reason}. "
            "Train it again, or take another copy."
        ) from error
    return TrainedHypernetwork(network, card), _of(tensors, _OPTIMIZER)


def _of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): one
        for name, one in tensors.items()
        if name.startswith(prefix)
    }
