"""What ``collabedit locate`` does: open, ask, trace, choose, write, show."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from flwr_collabedit.cli.inputs import EMBEDDED, open_model
from flwr_collabedit.cli.locate_result import shown, warn_of
from flwr_collabedit.cli.terminal import Terminal
from flwr_collabedit.data.known_facts import (
    KnownFact,
    embedded_facts,
    load_known_facts,
)
from flwr_collabedit.errors import ConfigurationError
from flwr_collabedit.files import new_folder
from flwr_collabedit.locating.averages import TraceAverages
from flwr_collabedit.locating.causal_trace import FactTrace, trace_facts
from flwr_collabedit.locating.configuration import located_hyperparameters
from flwr_collabedit.locating.known import KnownFacts, find_known
from flwr_collabedit.locating.layer_choice import LEAST_SHARE, choose_layers
from flwr_collabedit.locating.trace_settings import TraceSettings, window_size
from flwr_collabedit.models.language_model import LanguageModel


@dataclass(frozen=True)
class LocatePlan:
    """What to trace; as the options of ``collabedit locate``."""

    facts: str
    data_format: str
    limit: int
    most_layers: int
    settings: TraceSettings


def locate_layers(
    told: Terminal,
    model: str,
    revision: str,
    dtype: str,
    device: str,
    plan: LocatePlan,
    out: Path | None,
) -> tuple[int, ...]:
    """Return the layers, after they were written and shown; none if none stands out.

    Raises
    ------
    ConfigurationError
        If there are no facts, the model knows none of them or has a single block, or
        matplotlib is missing.
    """
    try:
        from flwr_collabedit.locating.picture import draw_trace
    except ImportError as error:
        raise ConfigurationError(str(error)) from error
    folder = out or Path("runs") / f"locate-{datetime.now():%Y%m%d-%H%M%S}"
    with new_folder(folder) as draft:
        facts = _open_facts(model, plan)
        lm = open_model(told, model, revision=revision, dtype=dtype, device=device)
        _check_depth(lm)
        with told.progress("known facts", plan.limit) as update:
            known = find_known(lm, facts, most=plan.limit, progress=update)
        _tell_known(told, known, plan)
        with told.progress("tracing", len(known.facts)) as update:
            traces = trace_facts(lm, known.facts, plan.settings, progress=update)
        averages = TraceAverages.of(traces)
        layers = choose_layers(averages, most=plan.most_layers)
        window = window_size(lm.num_layers, plan.settings)
        title = f"{model}: {len(traces)} facts"
        picture = draw_trace(averages, layers, title=title, window=window)
        (draft / "trace.png").write_bytes(picture)
        result = {
            "model": model,
            "revision": revision,
            "dtype": dtype,
            "num_layers": lm.num_layers,
            "layers": layers,
            "rule": {"most_layers": plan.most_layers, "least_share": LEAST_SHARE},
            "settings": {**asdict(plan.settings), "window": window},
            "facts": plan.facts or EMBEDDED,
            "num_asked": known.num_asked,
            "num_traced": len(traces),
            "problems": known.problems,
            "averages": asdict(averages),
        }
        _write_json(draft / "trace.json", {**result, "traces": _rows(traces)})
        if layers:
            hyperparameters = located_hyperparameters(lm, layers)
            _write_json(draft / "edit.json", hyperparameters)
    warn_of(told, averages, layers)
    told.result({**result, "out": str(folder)}, *shown(averages, layers, folder))
    return layers


def _open_facts(model: str, plan: LocatePlan) -> list[KnownFact]:
    if plan.facts:
        return load_known_facts(plan.facts, data_format=plan.data_format)
    if model != EMBEDDED:
        raise ConfigurationError(
            f"Expected --facts for {model!r}: facts that it may know, such as ROME's "
            "known_1000.json. Only 'embedded' brings its own."
        )
    return embedded_facts(plan.limit, seed=plan.settings.seed)


def _check_depth(lm: LanguageModel) -> None:
    if lm.num_layers < 2:
        raise ConfigurationError(
            f"Expected a model of at least 2 blocks; {lm.name!r} has {lm.num_layers}. "
            "What its MLP writes at the subject reaches no other position, so that "
            "there is nothing to edit."
        )


def _tell_known(told: Terminal, known: KnownFacts, plan: LocatePlan) -> None:
    told.note(f"{len(known.facts)} known of {known.num_asked} facts asked")
    if known.problems:
        told.warn(
            f"{len(known.problems)} facts could not be asked. {known.problems[0]}"
        )
    if len(known.facts) < plan.limit:
        told.warn(f"Expected {plan.limit} known facts; the trace is less sure.")


def _rows(traces: Sequence[FactTrace]) -> list[dict[str, Any]]:
    return [
        {
            **trace.fact.model_dump(),
            "positions": trace.positions,
            "roles": [trace.prompt.role(position) for position in trace.positions],
            "clean": trace.clean,
            "corrupted": trace.corrupted,
            "restored": {kind: rows.tolist() for kind, rows in trace.restored.items()},
            "entering": {name: row.tolist() for name, row in trace.entering.items()},
        }
        for trace in traces
    ]


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
