"""From settings to the model, the data and the strategy, for server and clients."""

from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

from torch import Tensor

from flwr_collabedit.client.health import HealthTexts
from flwr_collabedit.client_app import cached_model
from flwr_collabedit.data.conflicts import assign_conflicts
from flwr_collabedit.data.copies import share_copies
from flwr_collabedit.data.fact_world import embedded_cases, embedded_corpus
from flwr_collabedit.data.held_out import (
    embedded_held_out_texts,
    embedded_neutral_prompts,
)
from flwr_collabedit.data.loading import load_cases
from flwr_collabedit.data.partition import split_over_clients, split_over_rounds
from flwr_collabedit.data.reference_texts import (
    ReferenceTexts,
    embedded_reference_texts,
)
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.data.texts import load_texts
from flwr_collabedit.editors.chat_cases import chat_case
from flwr_collabedit.editors.config import MemitConfig
from flwr_collabedit.editors.contexts import ContextTemplates, generate_contexts
from flwr_collabedit.editors.covariance import estimate_second_moments
from flwr_collabedit.editors.editor_config import EditorConfig
from flwr_collabedit.editors.hypernetwork_file import load_hypernetwork
from flwr_collabedit.editors.hyperparameters import hyperparameters_for
from flwr_collabedit.editors.kinds import KINDS, EditorParts
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.evaluation.text_quality import TextQuality
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.progress import ProgressLog
from simulations.clusters import prompt_clusters
from simulations.settings import ExperimentSettings
from simulations.strategies import withdrawals

Rounds = list[list[EvaluationCase]]


def language_model(settings: ExperimentSettings) -> LanguageModel:
    """Return the model, loaded once a process."""
    return cached_model(
        settings.model, settings.dtype, settings.device, settings.revision
    )


@lru_cache(maxsize=1)
def clients_rounds(settings: ExperimentSettings) -> list[Rounds]:
    """Return every client's cases of every round.

    The embedded world draws exactly as many cases as are asked for; a file or hub data
    set is cut after them. Copies of other clients' cases come on top. Of a deployment
    the server knows none.
    """
    if settings.is_deployment:
        return []
    if settings.data == "embedded":
        cases = embedded_cases(
            settings.num_edits, subjects=settings.subjects, seed=settings.seed
        )
    else:
        cases = load_cases(
            settings.data,
            data_format=settings.data_format,
            limit=settings.num_edits or None,
            zsre_target=settings.zsre_target,
        )[: settings.num_edits or None]  # a record of MQuAKE has several edits
    by_cluster = settings.partition == "by-subject-cluster"
    split = split_over_clients(
        cases,
        settings.num_clients,
        method=settings.partition,
        alpha=settings.dirichlet_alpha,
        clusters=prompt_clusters(settings, cases) if by_cluster else None,
        seed=settings.seed,
    )
    split = share_copies(split, settings.shared_fraction, seed=settings.seed)
    if settings.repeat_rounds:
        rounds = [[list(own) for _ in range(settings.num_rounds)] for own in split]
    else:
        rounds = [split_over_rounds(own, settings.num_rounds) for own in split]
    if settings.conflict_share:
        rounds = assign_conflicts(
            rounds,
            settings.conflict_share,
            later=settings.conflict_later,
            seed=settings.seed,
        )
    if settings.chat_template:
        tokenizer = language_model(settings).tokenizer
        rounds = [
            [[chat_case(tokenizer, case) for case in cases] for cases in own]
            for own in rounds
        ]
    return rounds


def taken_back(settings: ExperimentSettings, client: int) -> dict[int, EditSet]:
    """Return, by round, which of its earlier edits a client takes back.

    Raises
    ------
    ConfigurationError
        If an item of ``withdraw`` cannot be read.
    """
    found: dict[int, EditSet] = {}
    for text in withdrawals(settings):
        if not text.startswith("case:"):
            continue
        case_id, _, when = text.removeprefix("case:").rpartition("@")
        if not case_id or not when.isdecimal():
            raise ConfigurationError(
                f"Expected a withdrawal such as 'case:ID@ROUND', found {text!r}."
            )
        rounds = clients_rounds(settings)[client][: int(when) - 1]
        places = {
            number: [
                place
                for place, case in enumerate(cases)
                if str(case.request.case_id) == case_id
            ]
            for number, cases in enumerate(rounds, start=1)
        }
        found[int(when)] = found.get(int(when), EditSet()) | EditSet.of({**places})
    return found


@lru_cache(maxsize=1)
def health_texts(settings: ExperimentSettings) -> HealthTexts:
    """Return the text and the prompts that a model's health is measured on.

    For the embedded model sentences and prompts about subjects that are not edited; for
    any other the texts, and for prompts the first half of each one's words.
    """
    count, name = settings.health_samples, settings.health_texts
    if not count or not name:
        return HealthTexts()
    if name == "embedded":
        everyone = chain.from_iterable(chain.from_iterable(clients_rounds(settings)))
        edited = {case.request.subject for case in everyone}
        texts = embedded_held_out_texts(count, exclude=edited)
        prompts = embedded_neutral_prompts(count, exclude=edited)
        return HealthTexts(tuple(texts), tuple(prompts))
    found = tuple(islice(load_texts(name), count))
    words = [text.split() for text in found]
    halves = [" ".join(some[: max(1, len(some) // 2)]) for some in words]
    return HealthTexts(found, tuple(halves))


@lru_cache(maxsize=1)
def text_quality(settings: ExperimentSettings) -> TextQuality | None:
    """Return how free text is written and what it is held against, if it is."""
    name = settings.reference_texts
    if not settings.generation_tokens:
        return None
    if not name:
        return TextQuality(settings.generation_tokens, seed=settings.seed)
    from flwr_collabedit.evaluation.reference_score import ReferenceScore

    if name == "embedded":
        references = embedded_reference_texts()
    else:
        has_names = (
            settings.data_format == "counterfact" and settings.data != "embedded"
        )
        references = ReferenceTexts.from_file(
            name, counterfact=settings.data if has_names else None
        )
    reference = ReferenceScore(references)
    return TextQuality(
        settings.generation_tokens, seed=settings.seed, reference=reference
    )


def editor_config(settings: ExperimentSettings) -> EditorConfig:
    """Return the editor's configuration with the settings' overrides."""
    overrides: dict[str, Any] = {}
    if issubclass(KINDS[settings.editor].config, MemitConfig):
        overrides["second_moment_corpus"] = settings.second_moment_texts
    if settings.hypernetwork:
        # So that every client edits with the same one.
        network = load_hypernetwork(Path(settings.hypernetwork))
        overrides["hypernetwork"] = network.fingerprint
    if settings.second_moment_weight:
        overrides["second_moment_weight"] = settings.second_moment_weight
    if settings.second_moment_samples:
        overrides["second_moment_samples"] = settings.second_moment_samples
    overrides |= settings.hyperparameter_overrides
    return hyperparameters_for(
        language_model(settings),
        settings.hyperparameters,
        editor=settings.editor,
        **overrides,
    )


def contexts(settings: ExperimentSettings, lm: LanguageModel) -> ContextTemplates:
    """Return the context templates that the server sends to every client.

    Chats have the bare context alone, see `flwr_collabedit.models.chat`.
    """
    if settings.chat_template:
        return ContextTemplates()
    starters = [text for text in settings.context_starters.split(",") if text]
    return generate_contexts(lm, starters=starters, seed=settings.seed)


def second_moments(
    settings: ExperimentSettings, lm: LanguageModel, memit: MemitConfig
) -> dict[str, Tensor]:
    """Return ``E[k k^T]`` of every edited weight, from the cache where it has it."""
    name = settings.second_moment_texts
    texts = embedded_corpus() if name == "embedded" else load_texts(name)
    progress = ProgressLog("second moments: documents", memit.second_moment_samples)
    folder = Path(settings.cache_folder or settings.folder / "cache")
    return estimate_second_moments(
        lm,
        memit.layers,
        texts,
        num_samples=memit.second_moment_samples,
        corpus_name=name,
        max_length=memit.second_moment_max_length,
        dtype=memit.second_moment_dtype,
        cache_folder=folder,
        progress=progress,
    )


def editor_parts(
    settings: ExperimentSettings, lm: LanguageModel, config: EditorConfig
) -> EditorParts:
    """Return what the server's editor is made from, second moments included.

    Those that the editor needs are estimated now, so that clients find them in the
    cache.
    """
    moments: dict[str, Tensor] = {}
    if isinstance(config, MemitConfig):
        moments = second_moments(settings, lm, config)
    network = Path(settings.hypernetwork) if settings.hypernetwork else None
    return EditorParts(contexts(settings, lm), lambda: moments, network)
