"""What ``collabedit edit`` does, from the facts to the folder and its table."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from flwr_collabedit.algebra.schedule import LayerSchedule, check_schedule, check_sweeps
from flwr_collabedit.cli.inputs import find_moments, open_cases, open_model, scored
from flwr_collabedit.cli.tables import score_table
from flwr_collabedit.cli.terminal import Terminal
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.editor_names import EditorName, needs_hypernetwork
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates, generate_contexts
from flwr_collabedit.editors.editor import EditResult, ModelEdit
from flwr_collabedit.editors.editor_config import EditorConfig
from flwr_collabedit.editors.hyperparameters import hyperparameters_for
from flwr_collabedit.editors.kinds import EditorParts, make_editor
from flwr_collabedit.editors.memit import MemitEditor, MemitResult
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.export.edit_folder import (
    DELTA_FILE,
    EditCard,
    check_base,
    load_whole_edit,
    package_versions,
    save_edit,
)
from flwr_collabedit.files import check_writable
from flwr_collabedit.models.codebook import applied_edit
from flwr_collabedit.models.fingerprint import fingerprint
from flwr_collabedit.models.language_model import LanguageModel


@dataclass(frozen=True)
class EditPlan:
    """The options of ``collabedit edit`` that say what is written and how."""

    facts: str
    data_format: str = ""
    limit: int | None = None
    editor: EditorName = "memit"
    hyperparameters: str = ""
    covariance: Path | None = None
    sweeps: int = 1
    layer_schedule: LayerSchedule | None = None
    hypernetwork: Path | None = None
    after: Path | None = None
    chat_template: bool = False
    score: bool = True
    seed: int = 0


def edit_alone(
    told: Terminal,
    model: str,
    revision: str,
    dtype: str,
    device: str,
    plan: EditPlan,
    folder: Path,
) -> None:
    """Edit, write ``folder`` and show the scores.

    Raises
    ------
    CollabEditError
        If something that was given cannot be used; nothing is written then.
    """
    began = time.perf_counter()
    check_writable(folder)
    _check(plan)
    lm = open_model(told, model, revision=revision, dtype=dtype, device=device)
    config = hyperparameters_for(lm, plan.hyperparameters, editor=plan.editor)
    cases = open_cases(
        lm,
        plan.facts,
        data_format=plan.data_format,
        limit=plan.limit,
        chat_template=plan.chat_template,
    )
    start, earlier = _earlier(lm, plan)
    layers = tuple(sorted({*config.layers, *(earlier.layers if earlier else ())}))
    editor = make_editor(lm, config, _parts(told, lm, config, plan))
    scores = {}
    if plan.score:
        with applied_edit(lm, start.deltas, start.codebook):
            scores["before"], _ = scored(told, lm, cases, "before")
    options: dict[str, Any] = {}
    if isinstance(editor, MemitEditor):
        options = {"layer_schedule": plan.layer_schedule, "sweeps": plan.sweeps}
    with told.progress("facts", len(cases)) as update:
        result = editor.edit(
            [case.request for case in cases],
            start=start,
            progress=update,
            **options,
        )
    if plan.score:
        with applied_edit(lm, result.deltas, result.codebook):
            scores["after"], _ = scored(told, lm, cases, "after")
    card = EditCard(
        model=model,
        revision=revision,
        fingerprint=fingerprint(lm, layers),
        layers=layers,
        editor=config.to_json(),
        method=plan.editor.upper(),
        num_edits=len(cases) + (earlier.num_edits if earlier else 0),
        num_rounds=1 + (earlier.num_rounds if earlier else 0),
        settings=_settings(plan, dtype),
        scores=scores,
        packages=package_versions(),
    )
    save_edit(folder / DELTA_FILE, result.deltas, card, result.codebook)
    _show(told, folder, cases, card, result, time.perf_counter() - began)


def _earlier(lm: LanguageModel, plan: EditPlan) -> tuple[ModelEdit, EditCard | None]:
    if plan.after is None:
        return ModelEdit(), None
    saved = load_whole_edit(plan.after)
    check_base(lm, saved.card)
    if saved.codebook is not None and plan.editor != "grace":
        raise ConfigurationError(
            f"Expected an edit of weights in '{plan.after}' to go on from, found one "
            f"of {saved.card.method} with a codebook: its keys were taken on the "
            f"weights that {plan.editor.upper()} would change. Go on with GRACE, or "
            "edit the weights first."
        )
    return ModelEdit(saved.deltas, saved.codebook), saved.card


def _check(plan: EditPlan) -> None:
    """Check that the options are the editor's, before the model is loaded."""
    schedule, split = check_schedule(plan.layer_schedule, None, plan.editor)
    check_sweeps(schedule, split, plan.sweeps, 0.0)
    if needs_hypernetwork(plan.editor) != (plan.hypernetwork is not None):
        raise ConfigurationError(
            f"Expected --hypernetwork with MALMEN and MEND, and only there, found "
            f"{plan.hypernetwork} with {plan.editor.upper()}. `collabedit "
            "train-editor` writes one."
        )


def _parts(
    told: Terminal, lm: LanguageModel, config: EditorConfig, plan: EditPlan
) -> EditorParts:
    def moments() -> Mapping[str, Tensor]:
        assert isinstance(config, MemitConfig)  # of the editors that ask for them
        return find_moments(told, lm, config, plan.covariance)

    return EditorParts(_contexts(lm, plan), moments, plan.hypernetwork)


def _contexts(lm: LanguageModel, plan: EditPlan) -> ContextTemplates:
    # Text before the first turn of a chat is nothing that the model has seen.
    if plan.chat_template:
        return ContextTemplates()
    return generate_contexts(lm, seed=plan.seed)


def _settings(plan: EditPlan, dtype: str) -> dict[str, object]:
    """Return what the card tells: no path, since a path may name what is private."""
    hidden = {"facts", "covariance", "after", "hyperparameters", "hypernetwork"}
    hidden |= {"score"}
    told = {
        name.replace("_", "-"): value
        for name, value in asdict(plan).items()
        if name not in hidden
    }
    return {**told, "dtype": dtype}


def _show(
    told: Terminal,
    folder: Path,
    cases: list[EvaluationCase],
    card: EditCard,
    result: EditResult,
    seconds: float,
) -> None:
    norms: dict[str, float] = {}
    if isinstance(result, MemitResult):
        norms["residual_norm_before"] = float(result.residual_norms_before.norm())
        norms["residual_norm_after"] = float(result.residual_norms_after.norm())
    value = {
        "folder": str(folder),
        "edits": len(cases),
        "layers": list(card.layers),
        "scores": card.scores,
        **norms,
        "seconds": seconds,
    }
    left = "; residual norm " + " → ".join(f"{n:.1f}" for n in norms.values())
    left = left if norms else ""
    text = (
        f"{len(cases)} facts written into layers {', '.join(map(str, card.layers))} of "
        f"{card.model}{left}; {seconds:.1f} s.\n"
        f"Edit: {folder}\n"
        f'Next: collabedit ask {folder} "{cases[0].rewrite_prompt}"'
    )
    told.result(value, *score_table(card.scores), text)
