"""What ``collabedit locate`` says about what it found."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from flwr_collabedit.cli.terminal import Terminal
from flwr_collabedit.evaluation.intervals import Estimate
from flwr_collabedit.locating.averages import TraceAverages
from flwr_collabedit.locating.configuration import STILL_TO_CHOOSE

# Below this share of its probability the answer counts as forgotten.
_FORGOTTEN = 0.5


def warn_of(told: Terminal, averages: TraceAverages, layers: Sequence[int]) -> None:
    """Say why the choice may be worth little."""
    if averages.total.mean < _FORGOTTEN * averages.clean.mean:
        told.warn(
            "The noise hardly makes the model forget: the answer keeps "
            f"{averages.corrupted.mean:.2f} of {averages.clean.mean:.2f}. Use more "
            "noise (--noise 5)."
        )
    if not layers:
        told.warn(
            "No layer stands out: severing the MLPs at the subject's last token makes "
            "no sure difference. Trace more facts (--limit), or facts that the model "
            "does not read off the end of the prompt. No edit.json was written."
        )


def shown(
    averages: TraceAverages, layers: Sequence[int], folder: Path
) -> list[RenderableType]:
    """Return the layers with their effects, and what was chosen and written."""
    table = Table(title="Effect of what enters a layer at the subject's last token")
    for name in ("layer", "restored", "MLPs severed", "gap", "chosen"):
        table.add_column(name, justify="right")
    columns = (
        averages.entering["nothing"],
        averages.entering["mlp"],
        averages.gap["mlp"],
    )
    for layer, estimates in enumerate(zip(*columns, strict=True)):
        chosen = "yes" if layer in layers else ""
        table.add_row(str(layer), *map(_in_words, estimates), chosen)
    total = (
        f"Probability of the answer: {_in_words(averages.clean)}, with noise "
        f"{_in_words(averages.corrupted)}. Effects are what restoring gives back."
    )
    if not layers:
        return [table, Text(total), Text(f"Picture and numbers: {folder}")]
    found = ", ".join(map(str, layers))
    return [
        table,
        Text(total),
        Text(f"Layers to edit: {found}. Picture, numbers and edit.json: {folder}"),
        Text(f"In edit.json, {STILL_TO_CHOOSE}"),
    ]


def _in_words(estimate: Estimate) -> str:
    if estimate.half_width is None:
        return f"{estimate.mean:.3f}"
    return f"{estimate.mean:.3f} ± {estimate.half_width:.3f}"
