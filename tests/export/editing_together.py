"""An edit of two parties, as the tests here export it."""

from dataclasses import dataclass
from pathlib import Path
from string import printable

import torch
from flwr.app import Context
from pico import pico_language_model
from torch import Tensor

from flwr_collabedit.algebra.priors import ridge_priors
from flwr_collabedit.client import EditingClient
from flwr_collabedit.client_app import make_client_app
from flwr_collabedit.data.requests import EditRequest, EvaluationCase
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.covariance import estimate_second_moments
from flwr_collabedit.export.edit_folder import EditCard, save_edit
from flwr_collabedit.messages.payloads import read_deltas
from flwr_collabedit.models.fingerprint import describe
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.strategies import CollabEditStrategy
from simulations.in_process import InProcessGrid

PROMPT = "The capital of {} is"
# What no exported text may tell: one list a party.
FACTS = [[("France", "Rome")], [("Danielle Darrieux", "Berlin")]]
# More keys than d_key = 64, also where a key is the token's alone (gptj's first layer).
TEXTS = [
    f"Because {37 * i} lives in Asia, I think. {printable[5 * i :]}" for i in range(5)
]
MEMIT = MemitConfig(
    layers=(0, 1),
    num_gradient_steps=3,
    second_moment_weight=20.0,
    second_moment_samples=4,
    clamp_norm_factor=4.0,
)


@dataclass(frozen=True)
class Edited:
    """A base model, in memory and in a folder, and its edit."""

    lm: LanguageModel
    deltas: dict[str, Tensor]
    card: EditCard
    base: Path

    def save(self, path: Path) -> Path:
        save_edit(path, self.deltas, self.card)
        return path


def saved_base(
    family: str, folder: Path, dtype: torch.dtype, **config: object
) -> LanguageModel:
    """Return a pico model that is also in a folder, as a base model is."""
    lm = pico_language_model(family, dtype=dtype, **config)
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    lm.model.name_or_path = str(folder)
    return lm


def edit_together(
    lm: LanguageModel, folder: Path
) -> tuple[dict[str, Tensor], EditCard]:
    """Return what the strategy and two clients make of the facts, and its card."""
    moments = estimate_second_moments(
        lm, MEMIT.layers, TEXTS, num_samples=len(TEXTS), corpus_name="texts"
    )

    def client_fn(context: Context) -> EditingClient:
        index = int(context.node_config["partition-id"])
        cases = [
            EvaluationCase(
                request=EditRequest(
                    case_id=subject, prompt=PROMPT, subject=subject, target_new=target
                )
            )
            for subject, target in FACTS[index]
        ]
        state = folder / f"state-{index}"
        return EditingClient(lm, [cases], name=f"client-{index}", state_folder=state)

    base = describe(lm, MEMIT.layers)
    strategy = CollabEditStrategy(
        base,
        ridge_priors(moments, MEMIT.second_moment_weight),
        hyperparameters=MEMIT.to_json(),
        contexts=ContextTemplates((("{}",), ("Therefore. {}",))).to_json(),
        evaluate=False,
    )
    grid = InProcessGrid(make_client_app(client_fn), num_clients=len(FACTS))
    result = strategy.start(grid, num_rounds=1)
    card = EditCard(
        model=str(folder / "base"),
        fingerprint=base.fingerprint,
        layers=MEMIT.layers,
        editor=MEMIT.to_json(),
        method="CollabEdit",
        num_edits=2,
        num_clients=2,
        scores={"before": {"ES": 12.5}, "after": {"ES": 100.0, "NS": 75.25}},
        settings={"dtype": str(lm.dtype).removeprefix("torch.")},
        packages={"torch": torch.__version__},
    )
    return read_deltas(result.arrays, strategy.model), card


def logits(model: torch.nn.Module) -> Tensor:
    """Return the logits of some tokens, float64."""
    ids = torch.arange(40).reshape(2, 20) * 7 % 300
    with torch.no_grad():
        return model(input_ids=ids).logits.double()
