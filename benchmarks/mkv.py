"""Mediator vectors: what a re-edit saves, and what selecting them costs the server.

``python -m benchmarks.mkv``
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.selection import select, selection_table
from flwr_collabedit.client.personal_editing import PersonalEditing
from flwr_collabedit.client.personal_store import PersonalModel
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.editors.memit import MemitEditor
from flwr_collabedit.editors.targets import optimize_targets
from flwr_collabedit.evaluation.evaluate import evaluate_cases
from flwr_collabedit.evaluation.metrics import summarize
from flwr_collabedit.messages.instruction import Instruction
from flwr_collabedit.messages.mediator_payload import unpack_vectors
from flwr_collabedit.messages.personal_task import PersonalTask
from flwr_collabedit.models.fingerprint import describe
from flwr_collabedit.models.weights import applied_deltas
from simulations import experiment
from simulations.settings import ExperimentSettings

Deltas = dict[str, Tensor]


def main(
    facts: Annotated[str, typer.Option(help="Facts of a re-edit.")] = "10,50,200",
    editor: Annotated[str, typer.Option(help="memit or pmet")] = "memit",
    clients: int = 8,
    vectors: Annotated[int, typer.Option(help="Vectors a client.")] = 1000,
    width: Annotated[int, typer.Option(help="d of a vector.")] = 4096,
    threads: Annotated[int, typer.Option(help="Torch threads.")] = 2,
    measure: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Print both tables; the server's is measured in a process of its own."""
    torch.set_num_threads(threads)
    if measure:
        sys.stdout.write(json.dumps(select(clients, vectors, width)))
        return
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as folder:
        settings = ExperimentSettings(
            output_folder=folder,
            editor=editor,
            context_starters="The,In,People",
            second_moment_samples=2000,
        )
        re_edit(settings, 2)  # what only a first edit costs
        found = [re_edit(settings, int(count)) for count in facts.split(",")]
    console.print(re_edit_table(found, editor))
    command = [sys.executable, "-m", "benchmarks.mkv", "--measure"]
    command += ["--clients", str(clients), "--vectors", str(vectors)]
    command += ["--width", str(width), "--threads", str(threads)]
    done = subprocess.run(command, check=True, capture_output=True)
    title = f"{clients} clients with {vectors:,} vectors each, d = {width:,}, float64"
    console.print(selection_table(json.loads(done.stdout), title))


@dataclass(frozen=True)
class ReEdit:
    """Seconds of both ways to the same facts, and the share that holds after each."""

    facts: int
    steps: int
    targets_s: float
    write_s: float
    re_edit_s: float
    holds_from_scratch: float
    holds_re_edited: float


def re_edit(settings: ExperimentSettings, facts: int) -> ReEdit:
    """Return what an unedited model's edit costs from scratch and from vectors."""
    settings = settings.model_copy(
        update={"num_clients": 1, "num_rounds": 1, "subjects": "all"}
        | {"num_edits": facts}
    )
    [[cases]] = experiment.clients_rounds(settings)
    requests = [case.request for case in cases]
    lm = experiment.language_model(settings)
    memit = experiment.editor_config(settings)
    contexts = experiment.contexts(settings, lm)
    moments = experiment.second_moments(settings, lm, memit)
    model = describe(lm, memit.layers)
    task = PersonalTask(run_id="benchmark", phase="re-edit", provenance=names(facts))
    asked = Instruction(
        fingerprint=model.fingerprint,
        parameters=model.parameters,
        measured=model.parameters,
        server_round=1,
        round_id="",
        form="mkv",
        hyperparameters=memit.to_json(),
        contexts=contexts.to_json(),
    )
    editing = PersonalEditing(lm, memit, asked, task, model.shapes, moments)

    began = perf_counter()
    targets = optimize_targets(lm, requests, memit, contexts)
    targets_s = perf_counter() - began
    began = perf_counter()
    passes = MemitEditor(lm, memit, contexts, moments).write(requests, targets.z)
    write_s = perf_counter() - began
    # The sender's work, which is not the receiver's.
    blank = PersonalModel.new(model.shapes)
    _, arrays, _ = editing.share(blank, requests, targets)
    began = perf_counter()
    edited, counts = editing.re_edit(blank, unpack_vectors(arrays, model.shapes))
    re_edit_s = perf_counter() - began
    assert counts["reused"] == facts
    return ReEdit(
        *(facts, int(targets.num_steps.sum()), targets_s, write_s, re_edit_s),
        *(holding(lm, cases, d) for d in (passes.deltas, edited.deltas)),
    )


def names(count: int) -> tuple[str, ...]:
    return tuple(f"sender/1/{index}" for index in range(count))


def holding(lm, cases: Sequence[EvaluationCase], deltas: Deltas) -> float:
    """Return the facts' efficacy by accuracy (EA), in percent."""
    with applied_deltas(lm, deltas):
        return summarize(evaluate_cases(lm, cases).sums)["EA"] or 0.0


def re_edit_table(found: Sequence[ReEdit], editor: str) -> Table:
    """Return a line for each number of facts."""
    table = Table(
        title=f"Facts of others on the embedded model, {editor.upper()}, seconds",
        caption="EA: share of the facts that the edited model answers.",
    )
    for column in (
        *("facts", "gradient steps", "targets", "write", "from scratch"),
        *("re-edit", "ratio", "EA from scratch", "EA re-edit"),
    ):
        table.add_column(column, justify="right")
    for row in found:
        scratch = row.targets_s + row.write_s
        table.add_row(
            *(f"{row.facts}", f"{row.steps:,}", f"{row.targets_s:.2f}"),
            *(f"{row.write_s:.2f}", f"{scratch:.2f}", f"{row.re_edit_s:.3f}"),
            *(f"{scratch / row.re_edit_s:.0f}", f"{row.holds_from_scratch:.1f}"),
            f"{row.holds_re_edited:.1f}",
        )
    return table


if __name__ == "__main__":
    typer.run(main)
