"""CollabEdit through Flower's SecAgg+: how far the weights are from the plain sum's.

``python -m benchmarks.secure_aggregation``
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.common.secure_aggregation.secaggplus_constants import (
    RECORD_KEY_CONFIGS,
    Key,
    Stage,
)
from rich.console import Console
from rich.table import Table
from torch import Tensor

from flwr_collabedit.algebra.fixed_point import largest_limb_bits, rounding_bound
from flwr_collabedit.algebra.priors import ridge_priors
from flwr_collabedit.algebra.schedule import exchange_groups
from flwr_collabedit.client import EditingClient
from flwr_collabedit.client_app import make_client_app
from flwr_collabedit.data.fact_world import embedded_cases, embedded_corpus
from flwr_collabedit.edited_model import EditedModel
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.covariance import estimate_second_moments
from flwr_collabedit.models.fingerprint import describe
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.loading import EMBEDDED_MODEL, load_language_model
from flwr_collabedit.strategies import CollabEditStrategy, SecureAggregation
from simulations.in_process import InProcessGrid

Deltas = dict[str, Tensor]


def main(
    clients: Annotated[int, typer.Option(help="Clients; one drops out.")] = 4,
    edits: Annotated[int, typer.Option(help="Edits of each client.")] = 3,
    limbs: Annotated[str, typer.Option(help="Integers a number.")] = "1,2,3",
    schedule: Annotated[str, typer.Option(help="Layer schedule.")] = "frozen",
    threads: Annotated[int, typer.Option(help="Torch threads.")] = 2,
) -> None:
    """Print the differences of the merged deltas, relative to the plain sum's."""
    torch.set_num_threads(threads)
    with TemporaryDirectory() as folder:
        federation = Federation(clients, edits, schedule, Path(folder))
        title = f"Embedded model, {clients} clients, {edits} edits each, {schedule}"
        table = Table(title=title)
        for column in ("sum", "in it", "against", "relative difference"):
            table.add_column(column)
        for column in ("bound", "MB a client", "s an exchange"):
            table.add_column(column, justify="right")
        whole = federation.run()
        fewer = federation.run(without_last=True)
        table.add_row(*row("plain, float64", whole, whole, clients, 0))
        rounded = federation.run(wire_dtype="float32")
        table.add_row(*row("plain, float32", rounded, whole, clients, 0))
        for num_limbs in map(int, limbs.split(",")):
            secure = SecureAggregation(num_limbs=num_limbs)
            label = f"secure, {num_limbs} limbs"
            found = federation.run(secure=secure)
            table.add_row(*row(label, found, whole, clients, num_limbs))
            found = federation.run(secure=secure, last_drops_out=True)
            label += ", 1 drops out"
            table.add_row(*row(label, found, fewer, clients, num_limbs))
    Console(width=130).print(table)


def row(
    label: str,
    found: CollabEditStrategy,
    expected: CollabEditStrategy,
    asked: int,
    num_limbs: int,
) -> list[str]:
    """Return one line of the table."""
    gap = max(
        float((found.state.deltas[name] - delta).norm() / delta.norm())
        for name, delta in expected.state.deltas.items()
    )
    report = found.reports[-1]
    exchanges = len(exchange_groups(found.model.parameters, found.layer_schedule))
    bits = largest_limb_bits(asked)
    bound = rounding_bound(report.num_clients, num_limbs, bits) if num_limbs else 0.0
    return [
        label,
        f"{report.num_clients} of {asked}",
        f"the plain sum of {expected.reports[-1].num_clients}",
        f"{gap:.1e}" if gap else "0, equal bits",
        f"{bound:.1e}" if num_limbs else "",
        f"{report.upload_bytes / report.num_clients / 1e6:.1f}",
        f"{report.seconds['exchange'] / exchanges:.1f}",
    ]


@dataclass
class Federation:
    """Clients of the embedded model that optimise their targets once."""

    num_clients: int
    num_edits: int
    schedule: str
    folder: Path

    @cached_property
    def lm(self) -> LanguageModel:
        """The embedded model."""
        return load_language_model("embedded")

    @cached_property
    def memit(self) -> MemitConfig:
        """Its hyperparameters."""
        return MemitConfig.from_published(EMBEDDED_MODEL / "edit.json")

    @cached_property
    def moments(self) -> Deltas:
        """Its second moments."""
        layers, texts = self.memit.layers, embedded_corpus()
        return estimate_second_moments(
            self.lm, layers, texts, num_samples=4000, corpus_name="embedded"
        )

    @cached_property
    def model(self) -> EditedModel:
        """What is edited."""
        return describe(self.lm, self.memit.layers)

    def run(
        self,
        *,
        last_drops_out: bool = False,
        without_last: bool = False,
        **options: Any,
    ) -> CollabEditStrategy:
        """Run one round."""
        count = self.num_clients - without_last
        strategy = CollabEditStrategy(
            self.model,
            ridge_priors(self.moments, self.memit.second_moment_weight),
            hyperparameters=self.memit.to_json(),
            contexts=ContextTemplates().to_json(),
            **{
                "form": "dense",
                "layer_schedule": self.schedule,
                "wire_dtype": "float64",
                "min_available_nodes": count,
                "min_replies": count - last_drops_out,
                "evaluate": False,
                **options,
            },
        )
        app: ClientApp = make_client_app(self._client)
        if last_drops_out:
            app = LeavingApp(app, self.num_clients - 1)
        strategy.start(InProcessGrid(app, count), num_rounds=1)
        return strategy

    def _client(self, context: Context) -> EditingClient:
        index = int(context.node_config["partition-id"])
        cases = embedded_cases(self.num_clients * self.num_edits)
        return EditingClient(
            self.lm,
            [cases[index :: self.num_clients]],
            name=f"client-{index}",
            state_folder=self.folder / str(index),
        )


class LeavingApp(ClientApp):
    """A ClientApp of which one client shares its keys and is not seen again."""

    def __init__(self, app: ClientApp, index: int) -> None:
        super().__init__()
        self._app, self._index = app, index

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer as the app does, or fail."""
        configs = message.content.config_records.get(RECORD_KEY_CONFIGS, {})
        masking = configs.get(Key.STAGE) == Stage.COLLECT_MASKED_VECTORS
        if masking and context.node_config["partition-id"] == self._index:
            raise RuntimeError("The client has left.")
        return self._app(message, context)


if __name__ == "__main__":
    typer.run(main)
