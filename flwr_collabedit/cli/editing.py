"""What ``collabedit edit`` does, from the facts to the folder and its table."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from flwr_collabedit.algebra.schedule import LayerSchedule, check_schedule
from flwr_collabedit.cli.inputs import find_moments, open_cases, open_model, scored
from flwr_collabedit.cli.tables import score_table
from flwr_collabedit.cli.terminal import Terminal
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.editor_names import EditorName
from flwr_collabedit.editors.contexts import ContextTemplates, generate_contexts
from flwr_collabedit.editors.editor import ModelEdit
from flwr_collabedit.editors.hyperparameters import hyperparameters_for
from flwr_collabedit.editors.memit import MemitEditor, MemitResult
from flwr_collabedit.export.edit_folder import (
    DELTA_FILE,
    EditCard,
    check_base,
    load_edit,
    package_versions,
    save_edit,
)
from flwr_collabedit.files import check_writable
from flwr_collabedit.models.fingerprint import fingerprint
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.weights import applied_deltas


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
    layer_schedule: LayerSchedule = "synchronous"
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
    schedule, _ = check_schedule(plan.layer_schedule, None, plan.editor)
    lm = open_model(told, model, revision=revision, dtype=dtype, device=device)
    memit = hyperparameters_for(lm, plan.hyperparameters, editor=plan.editor)
    cases = open_cases(
        lm,
        plan.facts,
        data_format=plan.data_format,
        limit=plan.limit,
        chat_template=plan.chat_template,
    )
    start, earlier = _earlier(lm, plan.after)
    layers = tuple(sorted({*memit.layers, *(earlier.layers if earlier else ())}))
    moments = find_moments(told, lm, memit, plan.covariance)
    contexts = _contexts(lm, plan)
    editor = MemitEditor(lm, memit, contexts, moments)
    scores = {}
    if plan.score:
        with applied_deltas(lm, start):
            scores["before"], _ = scored(told, lm, cases, "before")
    with told.progress("targets", len(cases)) as update:
        result = editor.edit(
            [case.request for case in cases],
            layer_schedule=schedule,
            sweeps=plan.sweeps,
            start=ModelEdit(start),
            progress=update,
        )
    if plan.score:
        with applied_deltas(lm, result.deltas):
            scores["after"], _ = scored(told, lm, cases, "after")
    card = EditCard(
        model=model,
        revision=revision,
        fingerprint=fingerprint(lm, layers),
        layers=layers,
        editor=memit.to_json(),
        method=plan.editor.upper(),
        num_edits=len(cases) + (earlier.num_edits if earlier else 0),
        num_rounds=1 + (earlier.num_rounds if earlier else 0),
        settings=_settings(plan, dtype),
        scores=scores,
        packages=package_versions(),
    )
    save_edit(folder / DELTA_FILE, result.deltas, card)
    _show(told, folder, cases, card, result, time.perf_counter() - began)


def _earlier(
    lm: LanguageModel, path: Path | None
) -> tuple[dict[str, Tensor], EditCard | None]:
    if path is None:
        return {}, None
    deltas, card = load_edit(path)
    check_base(lm, card)
    return deltas, card


def _contexts(lm: LanguageModel, plan: EditPlan) -> ContextTemplates:
    # Text before the first turn of a chat is nothing that the model has seen.
    if plan.chat_template:
        return ContextTemplates()
    return generate_contexts(lm, seed=plan.seed)


def _settings(plan: EditPlan, dtype: str) -> dict[str, object]:
    """Return what the card tells: no path, since a path may name what is private."""
    hidden = {"facts", "covariance", "after", "hyperparameters", "score"}
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
    result: MemitResult,
    seconds: float,
) -> None:
    before, after = (
        float(norms.norm())
        for norms in (result.residual_norms_before, result.residual_norms_after)
    )
    value = {
        "folder": str(folder),
        "edits": len(cases),
        "layers": list(card.layers),
        "scores": card.scores,
        "residual_norm_before": before,
        "residual_norm_after": after,
        "seconds": seconds,
    }
    text = (
        f"{len(cases)} facts written into layers {', '.join(map(str, card.layers))} of "
        f"{card.model}; residual norm {before:.1f} → {after:.1f}; {seconds:.1f} s.\n"
        f"Edit: {folder}\n"
        f'Next: collabedit ask {folder} "{cases[0].rewrite_prompt}"'
    )
    told.result(value, *score_table(card.scores), text)
