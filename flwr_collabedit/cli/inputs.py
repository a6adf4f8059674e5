"""What commands are given, opened: the model, its facts, its hyperparameters."""

from pathlib import Path

from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from flwr_collabedit.cli.terminal import Terminal
from flwr_collabedit.data.fact_world import embedded_corpus
from flwr_collabedit.data.loading import load_cases
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.editors.chat_cases import chat_case
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.covariance import estimate_second_moments
from flwr_collabedit.editors.second_moment_folder import (
    default_folder,
    find_second_moments,
)
from flwr_collabedit.errors import NoSecondMomentError, RequestFormatError
from flwr_collabedit.evaluation.evaluate import evaluate_cases
from flwr_collabedit.evaluation.metrics import summarize
from flwr_collabedit.evaluation.record_check import check_cases
from flwr_collabedit.export.edit_folder import SavedEdit, check_base, load_whole_edit
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.loading import load_language_model

EMBEDDED = "embedded"
_SMALL = 10.0  # keys for each dimension of a key


def open_model(
    told: Terminal, name: str, *, revision: str, dtype: str, device: str
) -> LanguageModel:
    """Return the model, saying that it is loaded: a big one takes minutes."""
    told.note(f"Loading {name}")
    # Its bars would stand beside ours.
    disable_progress_bar()  # type: ignore[no-untyped-call]
    return load_language_model(name, revision=revision, dtype=dtype, device=device)


def open_edit(
    told: Terminal, edit: Path, *, dtype: str, device: str
) -> tuple[LanguageModel, SavedEdit]:
    """Return an edit's base model, which is not edited, and the edit.

    An empty ``dtype`` is the one that the model was edited in.

    Raises
    ------
    EditFileError
        If there is no edit.
    ConfigurationError
        If the model is not the one that was edited.
    """
    saved = load_whole_edit(edit)
    lm = open_model(
        told,
        saved.card.model,
        revision=saved.card.revision,
        dtype=dtype or saved.card.dtype,
        device=device,
    )
    check_base(lm, saved.card)
    return lm, saved


def open_cases(
    lm: LanguageModel,
    facts: str,
    *,
    data_format: str,
    limit: int | None,
    chat_template: bool = False,
) -> list[EvaluationCase]:
    """Return the cases of a file or data set, all of which this model can take.

    Raises
    ------
    RequestFormatError
        If a record cannot be used; nothing has been edited then.
    """
    cases = load_cases(facts, data_format=data_format, limit=limit)
    if chat_template:
        cases = [chat_case(lm.tokenizer, case) for case in cases]
    problems = check_cases(lm.tokenizer, cases, lm.max_length)
    bad = [problem for problem in problems if problem.is_error]
    if bad:
        raise RequestFormatError(
            f"{facts}: {bad[0]}. {len(bad)} of {len(cases)} records cannot be edited; "
            f"`collabedit data check {facts} --model {lm.name}` lists them."
        )
    return cases


def find_moments(
    told: Terminal, lm: LanguageModel, memit: MemitConfig, folder: Path | None
) -> dict[str, Tensor]:
    """Return the second moments of the edited layers.

    For the embedded model a small sample is estimated, in a second, where there is no
    file: `docs/covariance.md` says what that costs.

    Raises
    ------
    SecondMomentError
        If there is none for this model, or one is damaged.
    """
    folder = folder or default_folder()
    try:
        return find_second_moments(lm, memit.layers, folder, note=told.note)
    except NoSecondMomentError:
        if lm.name != EMBEDDED:
            raise
    told.note(f"No second moments in '{folder}' yet: estimating a small sample")
    with told.progress("second moments") as update:
        return estimate_second_moments(
            lm,
            memit.layers,
            embedded_corpus(),
            multiple=_SMALL,
            corpus_name=EMBEDDED,
            dtype=memit.second_moment_dtype,
            cache_folder=folder,
            progress=update,
        )


def scored(
    told: Terminal, lm: LanguageModel, cases: list[EvaluationCase], what: str
) -> tuple[dict[str, float], str]:
    """Return the measures of the model as it is now, in percent, and JSON lines."""
    with told.progress(f"scoring {what}") as update:
        found = evaluate_cases(lm, cases, progress=update)
    known = {k: v for k, v in summarize(found.sums).items() if v is not None}
    return known, found.to_json_lines()
