"""What ``collabedit train-editor`` does: open, train, write, try, show."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from rich.table import Table
from rich.text import Text
from torch import Tensor

from flwr_collabedit.cli.inputs import EMBEDDED, open_cases, open_model, scored
from flwr_collabedit.cli.terminal import Terminal
from flwr_collabedit.data.fact_world import embedded_cases
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.data.training_split import split_cases
from flwr_collabedit.data.training_world import embedded_training_cases
from flwr_collabedit.editor_names import EditorName, needs_hypernetwork
from flwr_collabedit.editors.closed_forms import FORM_OF
from flwr_collabedit.editors.contexts import ContextTemplates
from flwr_collabedit.editors.hypernetwork_config import (
    HypernetworkConfig,
    TrainingConfig,
)
from flwr_collabedit.editors.hypernetwork_file import (
    TrainedHypernetwork,
    save_hypernetwork,
)
from flwr_collabedit.editors.hypernetwork_training import HypernetworkTraining
from flwr_collabedit.editors.hyperparameters import hyperparameters_for
from flwr_collabedit.editors.kinds import KINDS, EditorParts, check_config, make_editor
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.files import check_writable
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import applied_deltas, weight_shapes

_HELD_OUT_SHARE = 0.1
_SHOWN = ("ES", "PS", "NS", "EA", "PA", "NA", "retention")

Settings = TypeVar("Settings", bound=BaseModel)


@dataclass(frozen=True)
class TrainingPlan:
    """The options of ``collabedit train-editor`` but those that load the model."""

    editor: EditorName
    out: Path
    network: Mapping[str, Any]
    training: Mapping[str, Any]
    data: str = ""
    data_format: str = ""
    limit: int | None = None
    layers: str = ""
    resume: bool = False
    held_out: int = 100

    @property
    def unfinished(self) -> Path:
        """Where the training is until it is done."""
        return self.out.with_name(f"{self.out.name}.unfinished")

    def check(self, model: str) -> None:
        """Raise for what cannot be, before the model is loaded.

        Raises
        ------
        ConfigurationError
            If the editor has no network, there is no data, a file is in the way, or
            none is there to go on with.
        """
        if not needs_hypernetwork(self.editor):
            raise ConfigurationError(
                f"Expected an editor with a network (malmen, mend), found "
                f"{self.editor!r}. It edits without any training."
            )
        if not self.data and model != EMBEDDED:
            raise ConfigurationError(
                f"Expected --data for {model!r}: facts to train on. Only 'embedded' "
                "brings its own."
            )
        if self.out.exists():
            raise ConfigurationError(
                f"Expected no file at '{self.out}', found one. Choose another name, or "
                "remove it."
            )
        if self.unfinished.exists() != self.resume:
            expected, found, remedy = "no", "one", "Add --resume, or remove it."
            if self.resume:
                expected, found, remedy = "an", "none", "Leave --resume out."
            raise ConfigurationError(
                f"Expected {expected} unfinished training at '{self.unfinished}', "
                f"found {found}. {remedy}"
            )
        check_writable(self.out.parent)


def train(
    told: Terminal,
    model: str,
    revision: str,
    dtype: str,
    device: str,
    plan: TrainingPlan,
) -> None:
    """Train, write the file, and show what the network does on held-out facts.

    Raises
    ------
    CollabEditError
        If something that was given cannot be used; nothing is written then.
    """
    plan.check(model)
    lm = open_model(told, model, revision=revision, dtype=dtype, device=device)
    layers = _layers(lm, plan)
    cases, held_out = _cases(lm, plan)
    num_subjects = len({case.request.subject for case in cases})
    given = dict(plan.training)
    given["edits_per_step"] = min(given["edits_per_step"], num_subjects)
    weights = weight_shapes(lm, layers)
    network = {"form": FORM_OF[plan.editor], "weights": weights, **plan.network}
    training = HypernetworkTraining(
        lm,
        layers,
        cases,
        _checked(HypernetworkConfig, network),
        _checked(TrainingConfig, given),
    )
    if plan.resume:
        training.resume(plan.unfinished)
        told.note(f"Going on after {training.num_steps} steps")
    began = time.perf_counter()
    try:
        with told.progress("training", given["num_steps"]) as update:
            trained = training.run(plan.unfinished, progress=update)
    except KeyboardInterrupt:
        told.note("The same command with --resume goes on where this one stopped.")
        raise
    seconds = time.perf_counter() - began
    save_hypernetwork(plan.out, trained)
    plan.unfinished.unlink(missing_ok=True)
    scores = _tried(told, lm, plan, layers, held_out) if held_out else {}
    _show(told, plan, trained, scores, len(held_out), seconds)


def _layers(lm: LanguageModel, plan: TrainingPlan) -> tuple[int, ...]:
    kind = KINDS[plan.editor]
    if not plan.layers:
        return hyperparameters_for(lm, editor=plan.editor).layers
    try:
        layers = [int(part) for part in plan.layers.split(",") if part.strip()]
    except ValueError as error:
        raise ConfigurationError(
            f"Expected layers such as 22,23,24, found {plan.layers!r}."
        ) from error
    config = kind.config.checked({"layers": layers}, "--layers")
    check_config(lm, config)
    return config.layers


def _cases(
    lm: LanguageModel, plan: TrainingPlan
) -> tuple[list[EvaluationCase], list[EvaluationCase]]:
    """Return training facts, and held-out ones of other subjects."""
    if not plan.data:
        held_out = []
        if plan.held_out:
            held_out = embedded_cases(plan.held_out, subjects="held-out")
        return embedded_training_cases(), held_out
    cases = open_cases(lm, plan.data, data_format=plan.data_format, limit=plan.limit)
    training, held_out = split_cases(cases, _HELD_OUT_SHARE)
    return training, held_out[: plan.held_out]


def _tried(
    told: Terminal,
    lm: LanguageModel,
    plan: TrainingPlan,
    layers: tuple[int, ...],
    cases: list[EvaluationCase],
) -> dict[str, dict[str, float]]:
    """Return the scores of held-out facts before and after they are edited."""

    def none() -> dict[str, Tensor]:
        return {}

    config = KINDS[plan.editor].config.checked({"layers": layers}, "--layers")
    parts = EditorParts(ContextTemplates(), none, plan.out)
    editor = make_editor(lm, config, parts)
    result = editor.edit([case.request for case in cases])
    before, _ = scored(told, lm, cases, "before")
    with applied_deltas(lm, result.deltas):
        after, _ = scored(told, lm, cases, "after")
    return {"before": before, "after": after}


def _checked(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}, found {item['input']!r}"
            for item in error.errors()
        )
        raise ConfigurationError(f"Options are wrong: {found}.") from error


def _show(
    told: Terminal,
    plan: TrainingPlan,
    trained: TrainedHypernetwork,
    scores: Mapping[str, Mapping[str, float]],
    num_held_out: int,
    seconds: float,
) -> None:
    card = trained.card
    result = {
        "editor": plan.editor,
        "model": card.model,
        "layers": list(card.layers),
        "steps": card.num_steps,
        "seconds": seconds,
        "file": str(plan.out),
        "fingerprint": trained.fingerprint,
        "held_out": num_held_out,
        "scores": scores,
    }
    table = Table(title=f"{num_held_out} facts of subjects not trained on, in percent")
    table.add_column("")
    for name in _SHOWN:
        table.add_column(name, justify="right")
    for when, found in scores.items():
        cells = [f"{found[name]:.1f}" if name in found else "-" for name in _SHOWN]
        table.add_row(when, *cells)
    said = Text(
        f"{plan.editor.upper()} for layers {', '.join(map(str, card.layers))}, "
        f"{card.num_steps} steps in {seconds:.0f} s: {plan.out}\n"
        f"Fingerprint: {trained.fingerprint}"
    )
    told.result(result, *([table] if scores else []), said)
