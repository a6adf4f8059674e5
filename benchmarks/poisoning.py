"""One client of eight sends poison: what the others' edits and the model lose.

``python -m benchmarks.poisoning``. The embedded model; the statistics of one client are
changed after it has measured them, as a hostile client would.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import torch
import typer
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from rich.console import Console
from rich.table import Table

from flwr_collabedit.algebra.priors import ridge_priors
from flwr_collabedit.client import EditingClient
from flwr_collabedit.client_app import make_client_app
from flwr_collabedit.data.fact_world import embedded_cases, embedded_corpus
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import generate_contexts
from flwr_collabedit.editors.covariance import estimate_second_moments
from flwr_collabedit.evaluation.evaluate import evaluate_cases
from flwr_collabedit.evaluation.metrics import summarize
from flwr_collabedit.messages.payloads import ARRAYS, read_deltas
from flwr_collabedit.models.fingerprint import describe
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.loading import EMBEDDED_MODEL, load_language_model
from flwr_collabedit.models.weights import applied_deltas
from flwr_collabedit.strategies import CollabEditStrategy
from simulations.in_process import InProcessGrid

Values = np.ndarray
Poison = Callable[[str, Values, np.random.Generator], Values]


@dataclass(frozen=True)
class Attack:
    """What the hostile client does to each array, and what it is called."""

    name: str
    poison: Poison


def _scaled(factor: float) -> Poison:
    return lambda key, values, _: values * factor if "residual" in key else values


def _noise(key: str, values: Values, rng: np.random.Generator) -> Values:
    if "residual" not in key:
        return values
    noise = rng.standard_normal(values.shape)
    return noise * (np.linalg.norm(values) / np.linalg.norm(noise))


ATTACKS = (
    Attack("none", lambda _, values, __: values),
    Attack("residuals x 2", _scaled(2)),
    Attack("residuals x 5", _scaled(5)),
    Attack("residuals x 10", _scaled(10)),
    Attack("residuals x 100", _scaled(100)),
    Attack("residuals x -1", _scaled(-1)),
    Attack("random residuals of their size", _noise),
)


def main(
    clients: Annotated[int, typer.Option(min=4)] = 8,
    edits: Annotated[int, typer.Option(help="Of each client.", min=1)] = 25,
) -> None:
    """Print the Score of the honest clients' edits, and what became of the model."""
    lm = load_language_model("embedded")
    cases = embedded_cases(clients * edits)
    split = [cases[start::clients] for start in range(clients)]
    honest = [case for own in split[1:] for case in own]
    table = Table(
        title=f"{clients} clients with {edits} edits each, one of them hostile",
        caption="Score and NA of the honest clients' edits; |Delta| / |W| of the last "
        "edited layer.",
    )
    for column in ("attack", "bound", "left out", "Score", "NA", "|Delta| / |W|"):
        table.add_column(column, justify="left" if column == "attack" else "right")
    with TemporaryDirectory() as folder:
        study = _Study(lm, split, honest, Path(folder))
        for attack in ATTACKS:
            for factor in (None, 8.0, 3.0):
                table.add_row(attack.name, *study.row(attack, factor))
    Console().print(table)


class _Study:
    """The federation, which keeps its clients' targets from attack to attack."""

    def __init__(
        self,
        lm: LanguageModel,
        split: list[list[EvaluationCase]],
        honest: list[EvaluationCase],
        folder: Path,
    ) -> None:
        self._lm, self._split, self._honest, self._folder = lm, split, honest, folder
        self._memit = MemitConfig.from_published(EMBEDDED_MODEL / "edit.json")
        self._moments = estimate_second_moments(
            lm,
            self._memit.layers,
            embedded_corpus(),
            num_samples=self._memit.second_moment_samples,
            corpus_name="embedded",
        )
        self._contexts = generate_contexts(lm).to_json()

    def row(self, attack: Attack, factor: float | None) -> list[str]:
        strategy = CollabEditStrategy(
            describe(self._lm, self._memit.layers),
            ridge_priors(self._moments, self._memit.second_moment_weight),
            hyperparameters=self._memit.to_json(),
            contexts=self._contexts,
            min_available_nodes=len(self._split),
            min_replies=len(self._split) - 1,
            evaluate=False,
            size_factor=factor,
        )
        grid = InProcessGrid(self._app(attack), len(self._split))
        result = strategy.start(grid, num_rounds=1)
        deltas = read_deltas(result.arrays, strategy.model)
        with applied_deltas(self._lm, deltas):
            scores = summarize(evaluate_cases(self._lm, self._honest).sums)
        name = strategy.model.parameters[-1]
        weight = self._lm.model.get_parameter(name)
        growth = float(deltas[name].norm()) / float(weight.double().norm())
        return [
            "none" if factor is None else f"{factor:g} x median",
            str(len(strategy.reports[-1].dropped)),
            *(f"{scores[key]:.1f}" for key in ("Score", "NA")),
            f"{growth:.2f}",
        ]

    def _app(self, attack: Attack) -> ClientApp:
        rng = np.random.default_rng(0)

        def client_fn(context: Context) -> EditingClient:
            index = int(context.node_config["partition-id"])
            return EditingClient(
                self._lm,
                [self._split[index]],
                name=f"client-{index}",
                state_folder=self._folder / str(index),
            )

        honest, app = make_client_app(client_fn), ClientApp()

        @app.train()
        def train(message: Message, context: Context) -> Message:
            reply = honest(message, context)
            if int(context.node_config["partition-id"]) == 0:
                arrays = {
                    key: Array(_cast(attack.poison(key, array.numpy(), rng), array))
                    for key, array in reply.content.array_records[ARRAYS].items()
                }
                changed = {**dict(reply.content), ARRAYS: ArrayRecord(arrays)}
                reply.content = RecordDict(changed)
            return reply

        return app


def _cast(values: Values, like: Array) -> Values:
    return np.ascontiguousarray(values.astype(like.dtype))


if __name__ == "__main__":
    torch.set_num_threads(1)
    typer.run(main)
