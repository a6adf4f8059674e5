"""What an upload reveals: the edited subjects that attackers find in it.

``python -m benchmarks.leakage`` prints the table of ``docs/privacy.md``; with ``--out``
it also writes ``leakage.png`` and ``leakage.json``. After CollabEdit (ICLR 2025),
section 6 and Figure 5, on the embedded model.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from flwr_collabedit.algebra.factors import seal
from flwr_collabedit.data.fact_world import default_world
from flwr_collabedit.editors.contexts import generate_contexts
from flwr_collabedit.evaluation.intervals import Estimate
from flwr_collabedit.files import replacing
from flwr_collabedit.models.loading import load_language_model
from flwr_collabedit.privacy.inverter import Inverter, name_tokens, train_inverter
from flwr_collabedit.privacy.recovery import Found, Rate
from flwr_collabedit.privacy.span_attack import gram_factor, span_scores
from flwr_collabedit.privacy.subject_keys import SubjectKeys

EDITS = (1, 2, 4, 8, 16)
EDITS_SEALED = (1, 16)
NUM_CLIENTS = 8
# Of the sum's clients; the last makes the sum's rank full.
EDITS_IN_SUM = (1, 2, 16, 100)
NUM_HELD_OUT = 900
SPAN, BARE, NETWORK = "span, wording known", "span, bare subject", "trained network"
KEYS, GRAM, SEALED, SUM = "K, key by key", "K K^T", "sealed factors", "secure sum"

Attack = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Row:
    """What one attacker finds in one form of upload."""

    form: str
    edits: int
    attacker: str
    found: tuple[Found, ...]

    def rate(self, name: str) -> Rate:
        """Return a share of `Found` over the uploads, with its interval."""
        return Rate.of(getattr(one, name) for one in self.found)


class Study:
    """Uploads of held-out subjects, and attackers who never trained on these."""

    def __init__(self, layer: int, steps: int, seed: int) -> None:
        lm = load_language_model("embedded")
        contexts = generate_contexts(lm)
        self.keys = SubjectKeys.of_world(lm, default_world(), layer, contexts)
        self.tokens = name_tokens(lm, self.keys.subjects)
        self.steps, self.seed = steps, seed
        draws = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.keys.subjects), generator=draws)
        self.held_out, self.trained = order[:NUM_HELD_OUT], order[NUM_HELD_OUT:]

    def network(self, num_edits: int) -> Inverter:
        """Return the attacker trained on uploads of so many edits."""
        options = {"steps": self.steps, "seed": self.seed}
        return train_inverter(
            self.keys, self.tokens, self.trained, num_edits, **options
        )

    def attacks(self, network: Inverter | None) -> dict[str, Attack]:
        """Return the attackers by name."""
        found: dict[str, Attack] = {
            SPAN: partial(span_scores, candidates=self.keys.keys),
            BARE: partial(span_scores, candidates=self.keys.bare),
        }
        return found if network is None else {**found, NETWORK: network.scores}

    def rows(
        self,
        form: str,
        edits: int,
        see: Callable[[Tensor], Tensor],
        attacks: Mapping[str, Attack],
        num_uploads: int,
    ) -> list[Row]:
        """Return what each attacker finds in uploads of ``edits`` subjects.

        They are the same uploads for every form. ``see`` makes of keys
        ``(d_key, edit)`` what the server has.
        """
        draws = torch.Generator().manual_seed(self.seed + edits)
        found: dict[str, list[Found]] = {name: [] for name in attacks}
        for _ in range(num_uploads):
            order = torch.randperm(len(self.held_out), generator=draws)
            members = self.held_out[order[:edits]]
            factor = see(self.keys.draw(members, draws))
            for name, attack in attacks.items():
                found[name].append(Found.of(attack(factor), members.tolist()))
        return [Row(form, edits, name, tuple(each)) for name, each in found.items()]


def see_keys(keys: Tensor) -> Tensor:
    """Return the keys as they would travel."""
    return keys.float()


def see_gram(keys: Tensor) -> Tensor:
    """Return a factor of the gram matrix as it travels, in float32."""
    return gram_factor((keys @ keys.T).float())


def see_sealed(keys: Tensor) -> Tensor:
    """Return the sealed factor as it travels."""
    return seal(keys, keys[:1]).key_factor.float()


def see_sum(keys: Tensor) -> Tensor:
    """Return a factor of the sum of the clients' gram matrices."""
    parts = torch.stack([part @ part.T for part in keys.chunk(NUM_CLIENTS, dim=1)])
    return gram_factor(parts.float().double().sum(dim=0).float())


def measure(study: Study, num_uploads: int) -> Iterator[Row]:
    """Yield the rows of the table, form by form."""
    networks = {edits: study.network(edits) for edits in EDITS}
    alone = study.attacks(networks[1])
    yield from study.rows(KEYS, 1, see_keys, alone, num_uploads)
    for form, see, numbers in (
        (GRAM, see_gram, EDITS),
        (SEALED, see_sealed, EDITS_SEALED),
    ):
        for edits in numbers:
            attacks = study.attacks(networks[edits])
            yield from study.rows(form, edits, see, attacks, num_uploads)
    for each in EDITS_IN_SUM:
        edits = NUM_CLIENTS * each
        attacks = study.attacks(networks.get(edits))
        # Large sums take long, and say more each.
        count = num_uploads if each < EDITS[-1] else max(1, num_uploads // 5)
        yield from study.rows(SUM, edits, see_sum, attacks, count)


def main(
    uploads: Annotated[int, typer.Option(help="uploads of a row")] = 100,
    layer: Annotated[int, typer.Option(help="layer that is looked at")] = 0,
    steps: Annotated[int, typer.Option(help="training steps of a network")] = 300,
    seed: Annotated[int, typer.Option(help="of the split and the uploads")] = 0,
    out: Annotated[Path | None, typer.Option(help="folder of plot and rows")] = None,
) -> None:
    """Print what is recovered, and write the plot."""
    torch.set_num_threads(1)
    began = time.process_time()
    study = Study(layer, steps, seed)
    rows = list(measure(study, uploads))
    num_candidates = len(study.keys.subjects)
    console = Console(width=190)
    console.print(table(rows, num_candidates, layer))
    if out is not None:
        write(rows, num_candidates, out)
        console.print(f"wrote {out / 'leakage.png'} and {out / 'leakage.json'}")
    console.print(f"{time.process_time() - began:.0f} s of one core")


def table(rows: list[Row], num_candidates: int, layer: int) -> Table:
    """Return the rates in percent, with 95 % intervals, beside chance."""
    found = Table(
        *("server has", "edits", "attacker", "uploads", "first guess", "top-1"),
        *("top-5", "whole set", "chance: top-1", "top-5"),
        title=f"Edited subjects recovered, %, layer {layer}, {num_candidates} "
        f"candidates, {NUM_HELD_OUT} of them held out",
    )
    for row in rows:
        chance = Found.by_chance(row.edits, num_candidates)
        found.add_row(
            *(row.form, str(row.edits), row.attacker, str(len(row.found))),
            *(str(row.rate(name)) for name in Found._fields),
            *(f"{100 * chance.top_1:.2f}", f"{100 * chance.top_5:.2f}"),
        )
    return found


def write(rows: list[Row], num_candidates: int, folder: Path) -> None:
    """Write the plot, and every rate with its interval as JSON."""
    records = [
        {
            **{"form": row.form, "edits": row.edits, "attacker": row.attacker},
            "uploads": len(row.found),
            **{name: vars(row.rate(name)) for name in Found._fields},
            "chance": Found.by_chance(row.edits, num_candidates)._asdict(),
        }
        for row in rows
    ]
    with replacing(folder / "leakage.json") as draft:
        draft.write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")
    with replacing(folder / "leakage.png") as draft:
        draft.write_bytes(plot(rows, num_candidates))


def plot(rows: list[Row], num_candidates: int) -> bytes:
    """Return the share of edited subjects recovered by the number of edits, as PNG."""
    from flwr_collabedit.evaluation.plots import Panel, Series, draw_lines

    def points(form: str, attacker: str) -> dict[str, Estimate]:
        return {
            str(row.edits): _bar(row.rate("top_1"), len(row.found))
            for row in rows
            if (row.form, row.attacker) == (form, attacker)
        }

    panels = []
    for form, title in ((GRAM, "one client's K K^T"), (SUM, "secure sum, 8 clients")):
        edits = dict.fromkeys(row.edits for row in rows if row.form == form)
        chance = {
            str(n): Estimate(100 * Found.by_chance(n, num_candidates).top_1, None, 1)
            for n in edits
        }
        lines = [Series(name, points(form, name)) for name in (SPAN, BARE, NETWORK)]
        panels.append(
            Panel(
                title,
                "edits in the matrix",
                "edited subjects recovered, %",
                [*(line for line in lines if line.points), Series("chance", chance)],
                percent=True,
            )
        )
    return draw_lines(panels)


def _bar(rate: Rate, count: int) -> Estimate:
    # Half the interval's length on either side: the table has its true ends.
    return Estimate(100 * rate.mean, 50 * (rate.high - rate.low), count)


if __name__ == "__main__":
    typer.run(main)
