"""The Flower ``ClientApp`` around an `EditingClient`, and one ready for deployments.

An existing app names ``flwr_collabedit.client_app:app`` as its client. Each SuperNode's
``--node-config`` then says what the party brings: ``model``, ``edits-path``,
``edits-format``, ``edits-per-round``, ``state-folder``, ``device``, ``dtype`` and
``revision``; ``first-round``, the round in which a party that joins later writes its
first edits; its ``name``, which must stay the same over restarts;
``chat-template=true`` where prompts are to be the user's turns of an instruct model
(every party's alike, and the server then sends the bare context alone, see
`flwr_collabedit.models.chat`); and, where it wants them,
``conflict-key`` (a file, the same for all), ``health-texts`` (a text file),
``generation-tokens`` and ``reference-texts`` (free text, see docs/measures.md) and
``withdrawals-path``: JSON such as ``{"3": {"1": [0, 2]}}``, in round 3 the first and
third edit of round 1 are taken back. ``secure-only=true`` sends what is measured into
secure aggregation only; ``min-edits-per-upload`` and ``few-edits``
(``refuse`` or ``warn``) bound what its uploads show, see ``docs/privacy.md``.
"""

import json
import time
from collections.abc import Sequence
from functools import lru_cache
from logging import INFO
from pathlib import Path
from typing import cast

from flwr.app import Context
from flwr.common import log

from flwr_collabedit.client import EditingClient
from flwr_collabedit.client.editing_app import make_client_app as make_client_app
from flwr_collabedit.client.health import HealthTexts
from flwr_collabedit.client.upload_guard import FewEdits
from flwr_collabedit.data.loading import load_cases
from flwr_collabedit.data.reference_texts import ReferenceTexts
from flwr_collabedit.data.requests import EvaluationCase
from flwr_collabedit.data.texts import load_texts
from flwr_collabedit.editors.chat_cases import chat_case
from flwr_collabedit.errors import ConfigurationError, nearest
from flwr_collabedit.evaluation.text_quality import TextQuality
from flwr_collabedit.fact_tags import TagKey
from flwr_collabedit.messages.edit_set import EditSet
from flwr_collabedit.models.language_model import LanguageModel
from flwr_collabedit.models.loading import load_language_model

_NODE_DEFAULTS = {
    "model": "",
    "edits-path": "",
    "edits-format": "counterfact",
    "edits-per-round": 0,
    "first-round": 1,
    "state-folder": "",
    "device": "cpu",
    "dtype": "float32",
    "revision": "",
    "chat-template": False,
    "name": "",
    "conflict-key": "",
    "health-texts": "",
    "generation-tokens": 0,
    "reference-texts": "",
    "withdrawals-path": "",
    "secure-only": False,
    "min-edits-per-upload": 1,
    "few-edits": "refuse",
}
_FLOWER_KEYS = {"partition-id", "num-partitions"}


def deployed_client(context: Context) -> EditingClient:
    """Return the client that a SuperNode's ``--node-config`` describes."""
    given = {k: v for k, v in context.node_config.items() if k not in _FLOWER_KEYS}
    for key in given:
        if key not in _NODE_DEFAULTS:
            raise ConfigurationError(
                f"Unknown key {key!r} in the node config. "
                f"{nearest(key, _NODE_DEFAULTS)}"
            )
    settings = {**_NODE_DEFAULTS, **given}
    for key in ("model", "edits-path", "state-folder"):
        if not settings[key]:
            raise ConfigurationError(
                f"The node config has no {key!r}. Start the SuperNode with "
                f"--node-config '{key}=\"...\"'; paths must be absolute."
            )
    cases = load_cases(
        str(settings["edits-path"]), data_format=str(settings["edits-format"])
    )
    key, texts = str(settings["conflict-key"]), str(settings["health-texts"])
    name = str(settings["name"]) or f"node-{context.node_id}"
    began = time.perf_counter()
    lm = cached_model(
        *(str(settings[one]) for one in ("model", "dtype", "device", "revision"))
    )
    # In a deployment every message has a process of its own, which loads the model.
    log(INFO, "%s: model loaded in %.1f s", name, time.perf_counter() - began)
    if settings["chat-template"]:
        cases = [chat_case(lm.tokenizer, case) for case in cases]
    return EditingClient(
        lm,
        rounds_of(
            cases,
            int(str(settings["edits-per-round"])),
            int(str(settings["first-round"])),
        ),
        name=name,
        state_folder=Path(str(settings["state-folder"])),
        results_folder=Path(str(settings["state-folder"])) / "results",
        withdrawals=read_withdrawals(str(settings["withdrawals-path"])),
        tag_key=TagKey.from_file(key) if key else None,
        health=HealthTexts(tuple(load_texts(texts))) if texts else None,
        text_quality=text_quality(
            int(str(settings["generation-tokens"])), str(settings["reference-texts"])
        ),
        secure_only=bool(settings["secure-only"]),
        min_edits_per_upload=int(str(settings["min-edits-per-upload"])),
        few_edits=cast(FewEdits, str(settings["few-edits"])),  # checked by the guard
    )


def rounds_of(
    cases: Sequence[EvaluationCase], size: int, first_round: int = 1
) -> list[Sequence[EvaluationCase]]:
    """Return the cases of each round: none before the first, then so many a round.

    Parameters
    ----------
    cases : sequence of EvaluationCase
        In order; whoever appends some keeps the rounds that are full.
    size : int
        Cases of a round; 0 for all in one.
    first_round : int
        The round, from 1, that has the first ones.

    Raises
    ------
    ConfigurationError
        If a number is below its least value.
    """
    if size < 0 or first_round < 1:
        raise ConfigurationError(
            f"Expected edits-per-round from 0 and first-round from 1 in the node "
            f"config, found {size} and {first_round}."
        )
    step = size or max(len(cases), 1)
    before: list[Sequence[EvaluationCase]] = [()] * (first_round - 1)
    return before + [cases[at : at + step] for at in range(0, len(cases), step)]


@lru_cache(maxsize=1)
def text_quality(num_tokens: int, references: str) -> TextQuality | None:
    """Return how free text is written, if it is, and what it is held against."""
    if not num_tokens:
        return None
    if not references:
        return TextQuality(num_tokens)
    from flwr_collabedit.evaluation.reference_score import ReferenceScore

    texts = ReferenceTexts.from_file(references)
    return TextQuality(num_tokens, reference=ReferenceScore(texts))


def read_withdrawals(path: str) -> dict[int, EditSet]:
    """Return what a party takes back in each round; nothing for no path.

    Raises
    ------
    ConfigurationError
        If the file is not JSON of rounds.
    """
    if not path:
        return {}
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return {
            int(when): EditSet.from_json(json.dumps(edits))
            for when, edits in content.items()
        }
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigurationError(
            'Expected a file of withdrawals such as \'{"3": {"1": [0, 2]}}\' at '
            f"{path!r}, found {error}."
        ) from error


@lru_cache(maxsize=1)
def cached_model(
    name: str, dtype: str, device: str, revision: str = ""
) -> LanguageModel:
    """Return a model, loaded once a process: Ray's actors serve many clients."""
    return load_language_model(name, revision=revision, dtype=dtype, device=device)


app = make_client_app(deployed_client)
